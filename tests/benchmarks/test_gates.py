"""A gate passes on its own side of its aim only, and ratios are of runs that stood side by side."""

import pytest

from benchmarks.gates import Gate, median_ratio


@pytest.mark.parametrize(("value", "reached"), [(0.86, True), (0.85, True), (0.84, False)])
def test_a_gate_passes_on_its_side_of_the_aim(value: float, reached: bool) -> None:
    assert Gate("speed", value, 0.85).passed is reached
    assert Gate("cost", -value, -0.85, at_most=True).passed is reached


def test_a_gate_says_what_came_out_and_what_was_to() -> None:
    gate = Gate("resume", 12.345, 10.0, at_most=True, unit=" s")
    assert gate.line() == "FAIL  resume: 12.35 s (at most 10)"
    assert Gate("speed", 0.9, 0.85).line() == "PASS  speed: 0.90 (at least 0.85)"


def test_a_slow_spell_that_both_of_a_pair_met_changes_no_ratio() -> None:
    assert median_ratio([90, 9, 45], [100, 10, 50]) == pytest.approx(0.9)


def test_a_run_without_its_pair_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        median_ratio([1.0, 2.0], [1.0])
