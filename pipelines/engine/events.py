"""What a unit of work tells while it runs and how it ended: the words between engine and jobs."""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Generic, Literal, TypeVar

from mmdata.errors import EXIT_INTERRUPTED, MMDataError

Unit = TypeVar("Unit")
Result = TypeVar("Result")

#: A unit that is at work says so at least this often, as far as it comes between two steps.
SIGN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Alive:
    """Sign of life of work that has no result yet; the engine takes it and hands it to nobody.

    Attributes:
        node: of the cluster that the work runs on; empty where that is not known.
    """

    node: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """Progress since the last tick."""

    records: int
    images: int
    image_bytes: int
    dropped: int


@dataclass(frozen=True, slots=True)
class UnitFailure:
    """A unit that did not end well; the others go on."""

    unit: int
    error: str
    traceback: str


@dataclass(frozen=True, slots=True)
class UnitDone:
    """A unit that ended well."""

    unit: int


@dataclass(frozen=True, slots=True)
class UnitAgain:
    """A unit that was stopped from without and is run again.

    Attributes:
        unit: which.
        why: its worker or node went away, or it made no progress and was cancelled.
        detail: in words.
    """

    unit: int
    why: Literal["crashed", "stalled"]
    detail: str


Event = UnitFailure | UnitDone | UnitAgain


class ClusterLostError(MMDataError):
    """The cluster that a run was on is no more; what is committed stays."""

    exit_code = EXIT_INTERRUPTED


class RateLimit:
    """Holds signs of life to one in some seconds: by time, since one record may take long."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether the last one was long ago; the clock then starts anew."""
        now = time.monotonic()
        if now - self._last < SIGN_SECONDS:
            return False
        self._last = now
        return True


@dataclass(frozen=True, slots=True)
class LongSteps(Generic[Unit, Result]):
    """Work whose steps compute for long without a word.

    At Ray a unit of it runs in a thread of its own and counts as alive while that uses its core:
    one that waits for a disk for ever does not, one that turns in circles does. Work that tells of
    each of its many records needs none of this, and is held to them.

    Attributes:
        work: takes a unit, yields results.
    """

    work: Callable[[Unit], Iterator[Result]]

    def __call__(self, unit: Unit) -> Iterator[Result]:
        """Do a unit in this thread."""
        return self.work(unit)

    def watched(self, unit: Unit) -> Iterator[Result | Alive]:
        """Do a unit in a thread of its own, with signs of life."""
        told: SimpleQueue[Future[Result] | None] = SimpleQueue()
        thread = threading.Thread(target=_tell, args=(self.work, unit, told), daemon=True)
        thread.start()
        used = 0.0
        while True:
            try:
                outcome = told.get(timeout=SIGN_SECONDS)
            except Empty:
                before, used = used, _cpu_seconds(thread)
                if used > before:
                    yield Alive()
                continue
            if outcome is None:
                return
            yield outcome.result()


def _tell(
    work: Callable[[Unit], Iterator[Result]], unit: Unit, told: "SimpleQueue[Future[Result] | None]"
) -> None:
    """Put what comes of a unit on a queue: its results, then None or what it raised."""
    outcome: Future[Result] = Future()
    try:
        for result in work(unit):
            outcome.set_result(result)
            told.put(outcome)
            outcome = Future()
        told.put(None)
    # Raised again in the thread that waits.
    except BaseException as error:  # noqa: BLE001
        outcome.set_exception(error)
        told.put(outcome)


def one_step(compute: Callable[[Unit], Result]) -> LongSteps[Unit, Result]:
    """Work that is one long computation a unit, whose result it yields."""
    return LongSteps(partial(_only, compute))


def _only(compute: Callable[[Unit], Result], unit: Unit) -> Iterator[Result]:
    yield compute(unit)


def _cpu_seconds(thread: threading.Thread) -> float:
    """That a thread has used; of all threads where the system does not tell them apart (macOS)."""
    if sys.platform != "linux" or thread.ident is None:
        return time.process_time()
    with suppress(OSError):  # it has just ended
        return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return 0.0


def attempt(
    work: Callable[[Unit], Iterator[Result]], index: int, unit: Unit
) -> Generator[tuple[int, Result | UnitFailure | UnitDone], None, None]:
    """One unit, with its exceptions turned into a report."""
    try:
        for result in work(unit):
            yield index, result
    # The border of a unit: whatever its records or the machine raise is reported, not lost.
    except Exception as error:  # noqa: BLE001
        yield index, UnitFailure(index, one_line(error), traceback.format_exc())
    else:
        yield index, UnitDone(index)


def one_line(error: Exception) -> str:
    """An error in a line; those of ours speak for themselves."""
    text = " ".join(str(error).split())
    if isinstance(error, MMDataError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
