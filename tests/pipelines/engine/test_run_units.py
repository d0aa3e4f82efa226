"""Units run in this process or over Ray with one and the same report of how each ended."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmdata.errors import BadInputError, UserError
from pipelines.engine.events import UnitAgain, UnitDone, UnitFailure
from pipelines.engine.ray_tasks import MAX_RETRIES
from pipelines.engine.run_units import choose_workers, run_units, terminate_as_interrupt


def count(unit: int) -> Iterator[int]:
    """Yields as many results as the unit says; some units fail."""
    yield from range(unit)
    if unit == 3:
        raise BadInputError("docs.jsonl: record 7: it is\n  broken")
    if unit == 4:
        raise KeyError("gone")


def crash_once(unit: tuple[str, int]) -> Iterator[str]:
    """A worker that dies after ten results; started again, it has fewer to give."""
    marker, results = unit
    if not os.path.exists(marker):
        for k in range(10):
            yield f"first {k}"
        open(marker, "w").close()
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    yield from (f"second {k}" for k in range(results))


def crash_always(marker: str) -> Iterator[int]:
    with open(marker, "a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)
    yield 0


def by_unit(events: Iterator[tuple[int, Any]]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for index, event in events:
        found.setdefault(index, []).append(event)
    return found


@pytest.mark.parametrize(
    "workers", [0, pytest.param(2, marks=[pytest.mark.slow, pytest.mark.matrix, pytest.mark.ray])]
)
def test_every_unit_reports_its_results_in_order_and_one_ending(workers: int) -> None:
    found = by_unit(run_units(count, [2, 3, 0, 4, 5], workers=workers))
    assert found[0] == [0, 1, UnitDone(0)]
    assert found[2] == [UnitDone(2)]
    assert found[4] == [0, 1, 2, 3, 4, UnitDone(4)]
    ours, theirs = found[1].pop(), found[3].pop()
    assert found[1] == [0, 1, 2]
    assert found[3] == [0, 1, 2, 3]
    assert (ours.unit, ours.error) == (1, "docs.jsonl: record 7: it is broken")
    assert (theirs.unit, theirs.error) == (3, "KeyError: 'gone'")
    assert "Traceback" in theirs.traceback


@pytest.mark.slow
@pytest.mark.ray
def test_a_unit_whose_worker_died_is_run_again_and_loses_no_ending(tmp_path: Path) -> None:
    """Ray's own replay would leave out what the second attempt yields first, the ending too."""
    units = [(str(tmp_path / "a"), 2), (str(tmp_path / "b"), 20)]
    found = by_unit(run_units(crash_once, units, workers=1))
    for index, results in ((0, 2), (1, 20)):
        assert sum(isinstance(event, UnitAgain) for event in found[index]) == 1
        assert found[index][-results - 1 :] == [
            *(f"second {k}" for k in range(results)),
            UnitDone(index),
        ]


@pytest.mark.matrix
@pytest.mark.slow
@pytest.mark.ray
def test_a_unit_that_always_kills_its_worker_is_given_up_and_others_go_on(tmp_path: Path) -> None:
    marker = tmp_path / "attempts"
    found = by_unit(run_units(crash_always, [str(marker)], workers=1))
    *again, failure = found[0]
    assert [event.why for event in again] == ["crashed"] * MAX_RETRIES
    assert isinstance(failure, UnitFailure)
    assert failure.error.startswith(f"the worker died {MAX_RETRIES + 1} times: ")
    assert marker.read_text() == "x" * (MAX_RETRIES + 1)


def test_an_interruption_is_not_a_failure_of_the_unit() -> None:
    def interrupted(unit: int) -> Iterator[int]:
        yield unit
        raise KeyboardInterrupt

    events = run_units(interrupted, [1], workers=0)
    assert next(events) == (0, 1)
    with pytest.raises(KeyboardInterrupt):
        next(events)


def test_closing_early_ends_the_work_in_hand() -> None:
    ended = []

    def work(unit: int) -> Iterator[int]:
        try:
            yield unit
        finally:
            ended.append(unit)

    events = run_units(work, [1, 2], workers=0)
    next(events)
    events.close()
    assert ended == [1]


@pytest.mark.parametrize(
    ("requested", "seconds", "address", "workers"),
    [
        (3, 0.0, None, 3),
        (0, 1e9, None, 0),
        (None, 1.0, None, 0),
        (None, 1e9, None, os.cpu_count()),
        (None, 1.0, "ray://x", 0),
        (5, 1.0, "ray://x", 5),
    ],
)
def test_how_many_workers(
    requested: int | None, seconds: float, address: str | None, workers: int
) -> None:
    assert choose_workers(requested, seconds, address) == workers


def test_no_workers_and_a_cluster_contradict_each_other() -> None:
    with pytest.raises(UserError, match="leave out --ray-address"):
        choose_workers(0, 1.0, "ray://x")


@pytest.mark.slow
@pytest.mark.ray
def test_a_cluster_that_is_not_there_is_said_so() -> None:
    with pytest.raises(UserError, match=r"Ray 127\.0\.0\.1:1: could not .*--workers 0"):
        list(run_units(count, [1], workers=1, ray_address="127.0.0.1:1"))


def test_sigterm_is_an_interruption_within_and_what_it_was_without() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with terminate_as_interrupt(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    seen = []

    def inside() -> None:
        with terminate_as_interrupt():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]
