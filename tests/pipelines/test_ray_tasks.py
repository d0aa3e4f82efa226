"""What hangs at Ray is cancelled and tried once more; what is slow, or waits its turn, is not."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import ray_tasks
from pipelines.engine import UnitAgain, UnitDone, UnitFailure, run_units

pytestmark = [pytest.mark.slow, pytest.mark.ray]

STALL_SECONDS = 3.0
AGAIN = ["UnitAgain", "str", "str", "UnitDone"]


def hang(unit: tuple[str, int]) -> Iterator[str]:
    """Two results and then silence, in as many attempts as the unit says."""
    marker, times = unit
    with open(marker, "a") as file:
        file.write("x")
    yield "one"
    yield "two"
    if Path(marker).stat().st_size <= times:
        time.sleep(1e6)
    yield "three"


def stop_itself(marker: str) -> Iterator[str]:
    """A worker that is frozen whole, so that it does not hear that it is to end."""
    yield "one"
    if not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGSTOP)
    yield "two"


def freeze_at_once(marker: str) -> Iterator[str]:
    """The same before the driver can have heard of it."""
    if not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGSTOP)
    yield "one"


def slow(unit: int) -> Iterator[int]:
    """Takes longer than the patience, and is never silent for that long."""
    for k in range(5):
        time.sleep(1.0)
        yield k


def by_unit(events: Iterator[tuple[int, Any]]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for index, event in events:
        found.setdefault(index, []).append(event)
    return found


def test_a_unit_that_hangs_once_is_done_at_the_second_attempt(tmp_path: Path) -> None:
    units = [(str(tmp_path / "never"), 0), (str(tmp_path / "once"), 1), (str(tmp_path / "ever"), 9)]
    found = by_unit(run_units(hang, units, workers=2, stall_seconds=STALL_SECONDS))
    again = UnitAgain(1, "stalled", "no progress for 3 s (--stall-timeout)")
    assert found[0] == ["one", "two", "three", UnitDone(0)]
    assert found[1] == ["one", "two", again, "one", "two", "three", UnitDone(1)]
    *_, failure = found[2]
    assert isinstance(failure, UnitFailure)
    assert failure.error == "no progress for 3 s (--stall-timeout), 2 times: it was cancelled"
    assert (tmp_path / "ever").read_text() == "xx"


def test_slow_units_and_those_that_wait_for_a_worker_are_left_alone() -> None:
    """One worker has two tasks at a time: the second waits 5 s for its start."""
    found = by_unit(run_units(slow, [0, 1, 2], workers=1, stall_seconds=STALL_SECONDS))
    assert found == {unit: [0, 1, 2, 3, 4, UnitDone(unit)] for unit in range(3)}


def test_a_frozen_worker_does_not_hold_up_its_unit(tmp_path: Path) -> None:
    units = [str(tmp_path / "marker")]
    found = by_unit(run_units(stop_itself, units, workers=1, stall_seconds=STALL_SECONDS))
    told = [type(event).__name__ for event in found[0]]
    # What it said just before may be frozen with it.
    assert told in (["str", *AGAIN], AGAIN)


def test_a_worker_that_is_stuck_before_its_first_word_is_noticed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_tasks, "_START_SECONDS", 8.0)
    units = [str(tmp_path / "marker")]
    found = by_unit(run_units(freeze_at_once, units, workers=1, stall_seconds=STALL_SECONDS))
    assert [type(event).__name__ for event in found[0]] == ["UnitAgain", "str", "UnitDone"]


def test_a_consumer_that_takes_its_time_stalls_nobody() -> None:
    """The driver was held up, not the unit."""
    events = run_units(slow, [0], workers=1, stall_seconds=STALL_SECONDS)
    seen = [next(events)[1]]
    time.sleep(STALL_SECONDS + 3)
    seen += [event for _, event in events]
    assert seen == [0, 1, 2, 3, 4, UnitDone(0)]
