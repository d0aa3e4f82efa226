"""Order is arithmetic: every record once an epoch of its lanes, and the same again later."""

from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flamingo.data.order import LanePosition, Lanes, Position

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=40).filter(any)


def make(sizes: list[int], lanes: int, window: int | None = 2, **changes: object) -> Lanes:
    given: dict[str, object] = {"seed": 5, "stream": "s"}
    return Lanes(sizes, num_lanes=lanes, window_shards=window, **(given | changes))  # type: ignore[arg-type]


def epoch_of(order: Lanes, lane: int, epoch: int) -> list[tuple[int, int]]:
    return [order.place(lane, LanePosition(epoch, n)) for n in range(order.size(lane, epoch))]


def everything(sizes: list[int]) -> list[tuple[int, int]]:
    return [(shard, sample) for shard, size in enumerate(sizes) for sample in range(size)]


@given(SIZES, st.integers(1, 9), st.one_of(st.none(), st.integers(1, 5)), st.integers(0, 3))
def test_the_lanes_of_an_epoch_hold_every_record_once(
    sizes: list[int], lanes: int, window: int | None, epoch: int
) -> None:
    order = make(sizes, lanes, window)
    found = [epoch_of(order, lane, epoch) for lane in range(lanes)]
    assert sorted(list(chain.from_iterable(found))) == everything(sizes)
    if window is None:
        assert list(chain.from_iterable(found)) == everything(sizes)


@given(SIZES, st.integers(1, 5))
def test_a_lane_goes_through_its_epochs_without_a_gap(sizes: list[int], lanes: int) -> None:
    order = make(sizes, lanes)
    for lane in range(lanes):
        position = order.start(lane, LanePosition())
        for epoch in range(position.epoch, position.epoch + 3):
            for index in range(order.size(lane, epoch)):
                assert position == LanePosition(epoch, index)
                position = order.following(lane, position)
            if position.epoch != epoch + 1:  # epochs without a record are left out
                assert not order.size(lane, epoch + 1)
                break


@given(st.data())
def test_any_position_without_those_before(data: st.DataObject) -> None:
    sizes, lanes = data.draw(SIZES), data.draw(st.integers(1, 4))
    order = make(sizes, lanes)
    lane = data.draw(st.integers(0, lanes - 1))
    at = order.start(lane, LanePosition(2))
    index = data.draw(st.integers(0, order.size(lane, at.epoch) - 1))
    alone = make(sizes, lanes).place(lane, LanePosition(at.epoch, index))
    assert alone == epoch_of(order, lane, at.epoch)[index]


def test_many_shards_are_dealt_whole_and_evenly() -> None:
    sizes = [100 + number % 7 for number in range(100)]
    order = make(sizes, 8)
    assert order.whole_shards
    for epoch in range(3):
        shares = [order.pieces(lane, epoch) for lane in range(8)]
        assert sorted(int(shard) for rows in shares for shard in rows[:, 0]) == list(range(100))
        totals = [int(rows[:, 2].sum()) for rows in shares]
        assert max(totals) - min(totals) <= max(sizes)


def test_few_shards_are_cut_into_equal_spans_that_change() -> None:
    order = make([50, 30, 20], 8)
    assert not order.whole_shards
    spans = [[set(epoch_of(order, lane, epoch)) for lane in range(8)] for epoch in range(6)]
    assert {len(span) for epoch in spans for span in epoch} <= {12, 13}
    assert all(before[0] != after[0] for before, after in pairwise(spans))


def test_an_unequal_lane_holds_nobody_up() -> None:
    """More lanes than records: each gets its turn in some epoch."""
    order = make([3], 8)
    for lane in range(8):
        at = order.start(lane, LanePosition())
        assert order.size(lane, at.epoch) == 1
        assert order.following(lane, at).epoch > at.epoch


def test_seed_stream_epoch_and_lane_change_it() -> None:
    sizes = [10] * 10
    first = make(sizes, 2, 3)
    orders = [epoch_of(first, 0, 0), epoch_of(first, 0, 1), epoch_of(first, 1, 0)]
    orders.append(epoch_of(make(sizes, 2, 3, seed=2), 0, 0))
    orders.append(epoch_of(make(sizes, 2, 3, stream="b"), 0, 0))
    assert len({tuple(order) for order in orders}) == 5


def test_a_lane_has_no_more_shards_at_hand_than_a_window() -> None:
    order = make([4] * 18, 2, 3)
    places = epoch_of(order, 0, 0)
    windows = [[shard for shard, _ in places[first : first + 12]] for first in (0, 12, 24)]
    assert [len(set(window)) for window in windows] == [3, 3, 3]
    upcoming = order.upcoming(0, LanePosition(0, 13))
    assert set(upcoming[:3]) == set(windows[1])
    assert set(upcoming[3:]) == set(windows[2])
    last = order.upcoming(0, LanePosition(0, 30))
    assert set(epoch_of(order, 0, 1)[0:1][0][:1]) <= set(last[3:])


class TestResampled:
    def test_draws_are_with_replacement_and_reproducible(self) -> None:
        order = make([3, 0, 2, 4], 2, 4, resampled=True)
        drawn = [order.pieces(lane, epoch)[:, 0] for lane in range(2) for epoch in range(200)]
        again = make([3, 0, 2, 4], 2, 4, resampled=True).pieces(1, 199)[:, 0]
        assert np.array_equal(drawn[-1], again)
        counts = np.bincount(np.concatenate(drawn), minlength=4)
        assert counts[1] == 0  # empty
        assert all(430 < counts[shard] < 640 for shard in (0, 2, 3))  # 533 expected of each
        assert any(len(set(window.tolist())) < 4 for window in drawn)

    def test_a_draw_is_read_whole(self) -> None:
        order = make([3, 5, 4], 1, 2, resampled=True)
        shards = order.pieces(0, 7)[:, 0].tolist()
        assert sorted(epoch_of(order, 0, 7)) == sorted(
            (shard, n) for shard in shards for n in range([3, 5, 4][shard])
        )


def test_it_is_what_it_was() -> None:
    """A run that was started with an older numpy goes on in the same order."""
    order = make([3, 2, 4], 2, 2, seed=42, stream="mmc4")
    assert [epoch_of(order, lane, 1) for lane in range(2)] == REMEMBERED


REMEMBERED = [[(0, 1), (1, 1), (1, 0), (0, 2), (2, 0)], [(2, 2), (0, 0), (2, 3), (2, 1)]]


class TestPosition:
    def test_as_json_and_back(self) -> None:
        position = Position((LanePosition(1, 5, 2), None, LanePosition(0, 7)))
        assert Position.of_record(position.record()) == position
        assert position.last_epoch == 1

    def test_ranks_positions_make_one(self) -> None:
        first = Position((LanePosition(1), None))
        second = Position((None, LanePosition(2)))
        assert Position.merge([first, second]) == Position((LanePosition(1), LanePosition(2)))
        with pytest.raises(ValueError, match="lane 0: 2 ranks"):
            Position.merge([first, first])
        with pytest.raises(ValueError, match="lane 1: its position is not known here"):
            first.lane(1)

    def test_a_fresh_one_is_at_the_start_of_every_lane(self) -> None:
        assert Position().lane(17) == LanePosition(0, 0, 0)
