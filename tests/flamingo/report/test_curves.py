"""Curves: bounded in size, within their frame, and nothing that was there is hidden."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flamingo.report.curves import Curve, Panel, _ticks, panel, running_mean
from mmdata.html.svg import HEIGHT, WIDTH

NUMBERS = st.floats(-1e12, 1e12)


def drawn(*curves: Curve, **options: object) -> str:
    made = panel(
        Panel(id="c", title="T", curves=curves, values=lambda y: f"{y:.6g}", **options)  # type: ignore[arg-type]
    )
    assert made is not None
    return str(made)


def test_without_values_there_is_no_chart() -> None:
    assert panel(Panel(id="c", title="T", curves=[Curve("a", [])], values=str)) is None


@given(
    st.lists(st.tuples(st.floats(0, 1e9), NUMBERS), min_size=1, max_size=60),
    st.booleans(),
)
@example([(0.0, 5e-324)], True)
@example([(0.0, 1.0), (1.0, 1.7e308)], True)
def test_all_that_is_drawn_lies_in_the_frame(values: list[tuple[float, float]], log: bool) -> None:
    text = drawn(Curve("a", sorted(values)), log=log)
    for path in re.findall(r' points="([^"]*)"', text):
        for pair in path.split():
            x, y = map(float, pair.split(","))
            assert -0.01 <= x <= WIDTH + 0.01
            assert -0.01 <= y <= HEIGHT + 0.01
    assert "nan" not in text


def test_a_spike_of_one_step_is_seen_in_a_run_of_a_hundred_thousand() -> None:
    flat = [(float(step), 1.0) for step in range(100_000)]
    spiked = [*flat[:50_123], (50_123.0, 9.0), *flat[50_124:]]
    text = drawn(Curve("a", spiked), low=0.0, high=9.0)
    (band,) = re.findall(r'<polygon class="band s1" points="([^"]*)"', text)
    heights = [float(pair.split(",")[1]) for pair in band.split()]
    assert min(heights) < 20  # px: the top of the chart
    assert len(text) < 60_000


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.booleans(), st.booleans())
def test_ticks_are_few_and_within_the_range(
    low: float, span: float, whole: bool, seconds: bool
) -> None:
    if low + span <= low:
        return
    ticks = _ticks(low, low + span, 5, whole=whole, seconds=seconds)
    assert len(ticks) <= 6
    slack = span * 1e-3 + abs(low) * 1e-6
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)
    if whole:
        assert all(tick == round(tick) for tick in ticks)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=200))
def test_a_running_mean_stays_within_the_values(values: list[float]) -> None:
    means = running_mean([(float(x), y) for x, y in enumerate(values)])
    assert [x for x, _ in means] == list(range(len(values)))
    assert all(min(values) - 1e-6 <= y <= max(values) + 1e-6 for _, y in means)


def test_numbers_are_in_a_table_with_the_first_and_the_last() -> None:
    text = drawn(Curve("a", [(float(n), n / 10) for n in range(1, 501)]))
    rows = re.findall(r'<th scope="row">([\d,]+)</th>', text)
    assert rows[0] in ("1", "2", "3")
    assert 10 <= len(rows) <= 20
    assert rows[-1] in ("499", "500")


def test_several_curves_have_a_key_with_their_last_values() -> None:
    text = drawn(Curve("web", [(1, 2.0), (2, 1.5)]), Curve("pairs", [(1, 3.0)]))
    assert re.search(r"web <b>1\.5</b>", text)
    assert re.search(r"pairs <b>3</b>", text)


@pytest.mark.parametrize("low", [0.0, None])
def test_one_value_has_a_scale_too(low: float | None) -> None:
    assert "circle" in drawn(Curve("a", [(5, 0.0)]), low=low)
