"""Counts in fixed bins: exact where that is promised, the same however they are put together."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.report.distribution import Distribution, Scale

COUNTS = st.lists(st.integers(0, 3000), min_size=1)
COSINES = st.lists(st.floats(-1, 1), min_size=1)
SIZES = st.lists(st.integers(1, 2**40), min_size=1)
ANY = st.one_of(
    st.tuples(st.just("count"), COUNTS),
    st.tuples(st.just("cosine"), COSINES),
    st.tuples(st.just("octave"), SIZES),
)


def of(scale: Scale, values: list[float]) -> Distribution:
    made = Distribution(scale)
    made.add(values)
    return made


@given(ANY)
def test_size_mean_and_range_are_exact(drawn: tuple[Scale, list[float]]) -> None:
    made = of(*drawn)
    values = np.array(drawn[1], dtype=float)
    assert made.size == len(values)
    assert made.mean == pytest.approx(values.mean())
    assert (made.least, made.greatest) == (values.min(), values.max())


@given(ANY, st.integers(0, 50))
def test_parts_add_up_to_the_whole(drawn: tuple[Scale, list[float]], cut: int) -> None:
    scale, values = drawn
    whole, left, right = of(scale, values), of(scale, values[:cut]), of(scale, values[cut:])
    left.merge(right)
    assert left.bins.tolist() == whole.bins.tolist()
    assert (left.size, left.least, left.greatest) == (whole.size, whole.least, whole.greatest)


@given(ANY)
def test_every_value_is_in_one_bar_of_few(drawn: tuple[Scale, list[float]]) -> None:
    made = of(*drawn)
    bars = made.bars()
    assert sum(bar.count for bar in bars) == made.size
    assert len(bars) <= 25
    assert all(before.high == after.low for before, after in pairwise(bars))
    assert [bar.open_ended for bar in bars[:-1]] == [False] * (len(bars) - 1)


@given(COUNTS, st.floats(0.01, 1))
def test_a_quantile_of_counts_is_one_of_them(values: list[int], share: float) -> None:
    found = of("count", values).quantile(share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6


@given(COSINES, st.floats(0.01, 1))
def test_a_quantile_of_cosines_is_right_to_a_bin(values: list[float], share: float) -> None:
    exact = sorted(values)[max(0, math.ceil(share * len(values) - 1e-9) - 1)]
    assert of("cosine", values).quantile(share) == pytest.approx(exact, abs=0.006)


def test_one_document_of_many_sentences_does_not_flatten_the_others() -> None:
    made = of("count", [*([5] * 500), *([6] * 500), 900])
    *bars, last = made.bars()
    assert [(bar.low, bar.count) for bar in bars] == [(5, 500), (6, 500)]
    assert (last.low, last.high, last.count, last.open_ended) == (7, 900, 1, True)


@pytest.mark.parametrize(("scale", "value"), [("cosine", 1.0), ("octave", 500), ("count", 3)])
def test_one_value_alone_does_not_fill_the_chart(scale: Scale, value: float) -> None:
    bars = of(scale, [value] * 10).bars()
    assert len(bars) == 8
    (full,) = [bar for bar in bars if bar.count]
    assert full.low <= value < full.high


def test_a_value_on_an_edge_counts_above_it_whatever_its_last_bit() -> None:
    """0.235 and the like have no exact double; the bin must not depend on it."""
    made = of("cosine", [n * 0.005 for n in range(200)])
    assert made.bins[400:600].tolist() == [1] * 200


def test_share_below_a_threshold() -> None:
    assert of("cosine", [0.1, 0.2, 0.2399, 0.24, 0.3]).share_below(0.24) == pytest.approx(0.6)


def test_what_is_not_a_number_is_not_counted() -> None:
    assert of("cosine", [math.nan, math.inf, 0.5]).size == 1


def test_nothing_at_all() -> None:
    made = Distribution("octave")
    assert made.bars() == []
    assert math.isnan(made.mean)
    assert math.isnan(made.quantile(0.5))
    assert made.share_below(1) == 0
