"""Counts add up over shards, and padding is what random batches have."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.forecast.tally import TrainingTally, padding_share
from mmdata.training_view.plans import RecordPlan
from mmdata.training_view.selection import DocumentReason, ImageReason

PLANS = st.builds(
    RecordPlan,
    st.lists(st.integers(0, 9), max_size=5),
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
    st.dictionaries(st.integers(10, 12), st.sampled_from(ImageReason)),
    st.none() | st.sampled_from(DocumentReason),
)


def tally_of(plans: list[RecordPlan]) -> TrainingTally:
    tally = TrainingTally()
    for plan in plans:
        tally.add(plan, len(plan.images) + len(plan.image_drops))
        tally.add_threshold(0.24, len(plan.images))
    return tally


@given(st.lists(PLANS), st.lists(PLANS))
def test_shards_add_up(one: list[RecordPlan], other: list[RecordPlan]) -> None:
    merged = tally_of(one)
    merged.merge(tally_of(other))
    assert merged == tally_of(one + other)


@given(st.lists(PLANS))
def test_nothing_is_lost(plans: list[RecordPlan]) -> None:
    tally = tally_of(plans)
    assert tally.looked_at == tally.used + tally.dropped.total() == len(plans)
    lost = tally.images_dropped.total() + tally.images_of_dropped
    assert tally.images == tally.images_used + lost


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_padding_is_that_of_random_batches(batch_size: int) -> None:
    rng = random.Random(0)
    lengths = [rng.choice((5, 17, 60, 60, 256)) for _ in range(500)]
    real = padded = 0
    for _ in range(4000):
        batch = rng.choices(lengths, k=batch_size)
        real += sum(batch)
        padded += batch_size * max(batch)
    share = padding_share(Counter(lengths), batch_size)
    assert share == pytest.approx(1 - real / padded, abs=0.01)
    assert (share == 0.0) == (batch_size == 1)


def test_no_documents_have_no_padding() -> None:
    assert padding_share(Counter(), 8) == 0.0
