"""One definition of the loss at the start and at the end of a run."""

import math

from flamingo.telemetry.losses import end_losses, end_losses_of


def line(step: int, loss: float | None, *, skipped: bool = False) -> dict[str, object]:
    return {"step": step, "losses": {"web": loss}, "skipped": skipped}


def test_is_the_mean_of_the_first_and_last_five_steps_and_says_so() -> None:
    found = end_losses_of([line(step, float(step)) for step in range(1, 21)])
    first, last = found["web"]
    assert str(first) == "3.0000 (mean of steps 1 to 5)"
    assert str(last) == "18.0000 (mean of steps 16 to 20)"


def test_leaves_out_steps_that_were_skipped_or_are_not_finite() -> None:
    lines = [line(1, 8.0), line(2, None), line(3, 99.0, skipped=True), line(4, 2.0)]
    ((first, last),) = end_losses_of(lines).values()
    assert (str(first), str(last)) == ("8.0000 (step 1)", "2.0000 (step 4)")
    assert end_losses([(1, math.nan)]) is None
    assert end_losses_of([line(1, None)]) == {}


def test_one_step_is_no_mean() -> None:
    ((_, last),) = end_losses_of([line(7, 2.5)]).values()
    assert str(last) == "2.5000 (step 7)"
