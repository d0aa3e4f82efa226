"""Order is arithmetic: every record once an epoch, other orders for other seeds, the same later."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flamingo.data.order import Order, Position


def epoch_of(order: Order, epoch: int) -> list[tuple[int, int]]:
    return [order.place(Position(epoch, index)) for index in range(len(order))]


def everything(sizes: list[int]) -> list[tuple[int, int]]:
    return [(shard, sample) for shard, size in enumerate(sizes) for sample in range(size)]


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=8),
    st.one_of(st.none(), st.integers(1, 10)),
    st.integers(0, 3),
)
def test_every_record_once_an_epoch(sizes: list[int], window: int | None, epoch: int) -> None:
    order = Order(sizes, seed=5, stream="s", window_shards=window)
    found = epoch_of(order, epoch)
    assert sorted(found) == everything(sizes)
    if window is None:
        assert found == everything(sizes)


@given(st.data())
def test_any_position_without_those_before(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=7).filter(any))
    order = Order(sizes, seed=1, stream="s", window_shards=2)
    index = data.draw(st.integers(0, len(order) - 1))
    alone = Order(sizes, seed=1, stream="s", window_shards=2).place(Position(2, index))
    assert alone == epoch_of(order, 2)[index]


def test_seed_stream_and_epoch_change_it() -> None:
    sizes = [10] * 10
    first = Order(sizes, seed=1, stream="a", window_shards=3)
    orders = [epoch_of(first, 0), epoch_of(first, 1)]
    orders.append(epoch_of(Order(sizes, seed=2, stream="a", window_shards=3), 0))
    orders.append(epoch_of(Order(sizes, seed=1, stream="b", window_shards=3), 0))
    assert len({tuple(order) for order in orders}) == 4


def test_no_more_shards_are_open_than_a_window_has() -> None:
    order = Order([4] * 9, seed=3, stream="s", window_shards=3)
    places = epoch_of(order, 0)
    windows = [{shard for shard, _ in places[first : first + 12]} for first in (0, 12, 24)]
    assert [len(window) for window in windows] == [3, 3, 3]
    assert set.union(*windows) == set(range(9))


def test_it_is_what_it_was() -> None:
    """A run that was started with an older numpy goes on in the same order."""
    order = Order([3, 2, 4], seed=42, stream="mmc4", window_shards=2)
    assert epoch_of(order, 1) == REMEMBERED


REMEMBERED = [(2, 3), (2, 2), (0, 0), (0, 2), (2, 0), (2, 1), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize(("index", "following"), [(0, Position(3, 1)), (4, Position(4, 0))])
def test_following(index: int, following: Position) -> None:
    order = Order([5], seed=0, stream="s", window_shards=1)
    assert order.following(Position(3, index)) == following
