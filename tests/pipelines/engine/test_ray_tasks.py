"""What hangs at Ray is cancelled and tried once more; what is slow, or waits its turn, is not."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.engine import ray_tasks
from pipelines.engine.events import UnitAgain, UnitDone, UnitFailure
from pipelines.engine.ray_session import RaySession

pytestmark = [pytest.mark.slow, pytest.mark.ray]

STALL_SECONDS = 5.0
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
    for k in range(6):
        time.sleep(1.0)
        yield k


@pytest.fixture(scope="module")
def session() -> Iterator[RaySession]:
    """One Ray of two workers for all of these: starting and stopping it is 5 s."""
    with RaySession(2, None, stall_seconds=STALL_SECONDS) as started:
        yield started


def by_unit(events: Iterator[tuple[int, Any]]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for index, event in events:
        found.setdefault(index, []).append(event)
    return found


def test_a_unit_that_hangs_once_is_done_at_the_second_attempt(
    session: RaySession, tmp_path: Path
) -> None:
    units = [(str(tmp_path / "never"), 0), (str(tmp_path / "once"), 1), (str(tmp_path / "ever"), 9)]
    found = by_unit(session.run(hang, units))
    again = UnitAgain(1, "stalled", "no progress for 5 s (--stall-timeout)")
    assert found[0] == ["one", "two", "three", UnitDone(0)]
    assert found[1] == ["one", "two", again, "one", "two", "three", UnitDone(1)]
    *_, failure = found[2]
    assert isinstance(failure, UnitFailure)
    assert failure.error == "no progress for 5 s (--stall-timeout), 2 times: it was cancelled"
    assert (tmp_path / "ever").read_text() == "xx"


def test_slow_units_and_those_that_wait_for_a_worker_are_left_alone(session: RaySession) -> None:
    """Two workers have two tasks each at a time: the third and fourth wait 6 s for their start."""
    found = by_unit(session.run(slow, range(4)))
    assert found == {unit: [*range(6), UnitDone(unit)] for unit in range(4)}


def test_a_consumer_that_takes_its_time_stalls_nobody(session: RaySession) -> None:
    """The driver was held up, not the unit."""
    events = session.run(slow, [0])
    seen = [next(events)[1]]
    time.sleep(STALL_SECONDS + 1)
    seen += [event for _, event in events]
    assert seen == [*range(6), UnitDone(0)]


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("work", "expected"),
    [
        # What it said just before may be frozen with it.
        pytest.param(stop_itself, (["str", *AGAIN], AGAIN), id="in the middle"),
        pytest.param(freeze_at_once, (["UnitAgain", "str", "UnitDone"],), id="before a word"),
    ],
)
def test_frozen_workers_do_not_hold_up_their_units(
    session: RaySession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[[str], Iterator[str]],
    expected: tuple[list[str], ...],
) -> None:
    """Every worker is frozen, so that the second attempt needs the place of one that is."""
    monkeypatch.setattr(ray_tasks, "_START_SECONDS", 20.0)
    found = by_unit(session.run(work, [str(tmp_path / name) for name in "ab"]))
    assert len(found) == 2
    for events in found.values():
        assert [type(event).__name__ for event in events] in expected
