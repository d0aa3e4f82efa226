"""Slots of a batch: whole numbers, none for nobody, fairly among ranks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flamingo.data.mix import accumulation, mix_shares, mix_slots, whole_share
from mmdata.errors import UserError


def test_largest_remainder() -> None:
    assert mix_slots({"mmc4": 0.6, "laion": 0.4}, 8) == {"mmc4": 5, "laion": 3}
    assert mix_slots({"a": 1, "b": 1, "c": 1}, 8) == {"a": 3, "b": 3, "c": 2}


def test_a_share_without_a_slot_is_refused() -> None:
    with pytest.raises(UserError, match=r"--mix b=0.01: comes to no slot of a batch of 8; .* 101"):
        mix_slots({"a": 0.99, "b": 0.01}, 8)
    with pytest.raises(UserError, match="above 0"):
        mix_slots({"a": 1.0, "b": 0.0}, 8)


@given(
    st.lists(st.floats(0.05, 1.0), min_size=1, max_size=5),
    st.integers(20, 300),
    st.sampled_from([1, 2, 4]),
)
def test_every_slot_is_one_streams_and_one_ranks(
    shares: list[float], batch: int, world: int
) -> None:
    batch -= batch % world
    named = {f"s{number}": share for number, share in enumerate(shares)}
    slots = mix_slots(named, max(batch, 100 * world))
    total = sum(slots.values())
    parts = [mix_shares(slots, rank=rank, world=world) for rank in range(world)]
    for part in parts:
        assert sum(len(share.lanes) for share in part.values()) == total // world
    for name, number in slots.items():
        assert [lane for part in parts for lane in part[name].lanes] == list(range(number))
        for part in parts:  # each rank holds about the same mixture
            assert abs(len(part[name].lanes) - number / world) < len(shares)


def test_equal_parts() -> None:
    parts = [whole_share(8, num_lanes=4, rank=rank, world=2) for rank in range(2)]
    assert [list(part.lanes) for part in parts] == [[0, 1], [2, 3]]
    assert [part.samples_per_lane for part in parts] == [2, 2]
    assert whole_share(8, num_lanes=None).num_lanes == 8


def test_what_does_not_divide_is_refused_with_what_does() -> None:
    with pytest.raises(UserError, match=r"3 ranks cannot share 8 lanes .* one of 1, 2, 4, 8 ranks"):
        whole_share(8, num_lanes=None, world=3)
    with pytest.raises(UserError, match="lanes 3: expected a divisor of the 8"):
        whole_share(8, num_lanes=3)
    with pytest.raises(UserError) as raised:
        accumulation(8, 2, 3)
    assert str(raised.value) == (
        "a global batch of 8 samples is not 3 ranks x micro-batches of 2: "
        "numbers of ranks that fit: 1, 2, 4; no micro-batch fits 3 ranks"
    )
    with pytest.raises(UserError, match=r"fit: 1; micro-batches that fit 2 ranks: 1, 2, 4$"):
        accumulation(8, 8, 2)
    assert accumulation(8, 2, 2) == 2
