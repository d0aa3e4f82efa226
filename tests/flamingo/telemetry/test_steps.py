"""The values of an interval, from the steps in it."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flamingo.data.counts import StreamCounts
from flamingo.telemetry.steps import StepReport, bad_samples, interval_values, perplexity, spread


def step(number: int, *, loss: float = 2.0, seconds: float = 0.5, skipped: bool = False):
    return StepReport(
        step=number,
        losses={"web": loss},
        learning_rate=1e-4 * number,
        gradient_norm=loss / 2,
        skipped=skipped,
        streams={
            "web": StreamCounts(samples=8, tokens=1000, images=20, targets=900, encoded=20),
            "pairs": StreamCounts(samples=16, tokens=400, images=16, targets=300),
        },
        drops=Counter({"document:damaged": 1, "document:no-images": 5, "image:too-small": 9}),
        wait_seconds=seconds / 10,
        seconds=seconds,
    )


def test_rates_are_of_the_time_of_the_steps_and_of_a_gpu() -> None:
    values = interval_values([step(1), step(2)], num_gpus=4)
    assert values["steps"] == 2
    assert values["tokens_per_second"] == 2800
    assert values["samples_per_second"] == 48
    assert values["samples_per_second_per_gpu"] == {"web": 4, "pairs": 8}
    assert values["data_share"] == pytest.approx(0.1)
    assert values["learning_rate"] == pytest.approx(2e-4)
    assert values["bad_samples"] == 2


def test_a_skipped_step_is_counted_and_left_out_of_the_loss() -> None:
    steps = [step(1, loss=2.0), step(2, loss=math.nan, skipped=True), step(3, loss=4.0)]
    values = interval_values(steps, num_gpus=1)
    assert values["losses"] == {"web": 3.0}
    assert values["gradient_norm"] == 1.5
    assert values["skipped"] == 1


def test_one_slow_step_in_twenty_shows_in_the_percentile_above_the_mean() -> None:
    usual = spread([0.1] * 18 + [5.0] * 2)
    assert usual["p95"] == 5.0
    assert usual["mean"] == pytest.approx(0.59)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_at_least_95_percent_do_not_exceed_the_percentile(values: list[float]) -> None:
    p95 = spread(values)["p95"]
    assert p95 in values
    assert sum(value <= p95 for value in values) >= 0.95 * len(values)
    assert sum(value < p95 for value in values) < 0.95 * len(values)


def test_what_selection_leaves_out_is_not_bad() -> None:
    assert bad_samples({"document:no-images": 4, "document:damaged": 2, "image:missing": 1}) == 2


def test_perplexity_of_a_loss_that_has_run_away() -> None:
    assert perplexity(0.0) == 1.0
    assert perplexity(1e6) == math.inf


def test_the_line_of_a_step_adds_its_streams_up() -> None:
    line = step(7).line()
    assert (line["step"], line["samples"], line["tokens"], line["images"]) == (7, 24, 1400, 36)
    assert line["streams"]["pairs"]["targets"] == 300
