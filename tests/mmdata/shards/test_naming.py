"""Names of shards, samples and what stands beside shards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.shards.naming import REJECTS, SAMPLES, SIDECAR, TAR, sample_key, shard_of, shard_stem


@given(st.integers(0, 10**9 - 1), st.sampled_from([TAR, SAMPLES, REJECTS, SIDECAR]))
def test_a_name_tells_its_shard(index: int, ending: str) -> None:
    name = shard_stem(index) + ending
    assert len(shard_stem(index)) == 9
    assert shard_of(name) == (index, ending)


@given(st.lists(st.integers(0, 10**12 - 1)))
def test_keys_sort_as_their_ordinals(ordinals: list[int]) -> None:
    keys = [sample_key(ordinal, "a-") for ordinal in ordinals]
    assert sorted(keys) == [sample_key(ordinal, "a-") for ordinal in sorted(ordinals)]


def test_keys_have_twelve_digits() -> None:
    assert sample_key(41) == "000000000041"
    assert sample_key(41, "mmc4_") == "mmc4_000000000041"


@pytest.mark.parametrize(
    "name",
    ["00000.tar", "0000000000.tar", "000000000.tar.gz", "000000000", "x000000000.tar",
     "manifest.json", "sizes.json", "plan.json", "000000000.tar\n", "\u066000000000.json"],
)  # fmt: skip
def test_other_names_are_not_ours(name: str) -> None:
    assert shard_of(name) is None
