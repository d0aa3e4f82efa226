"""The tasks of a run at Ray, one a unit, and what becomes of those that crash or hang.

Ray's own retries are off: after a crash they replay a generator and leave out as many results as
were taken before, the ending too. So the loop here runs a unit again by itself: after a crash of
its worker (a few times), after the loss of its node (many times: that is never the unit's fault),
and once after a stall. A task says when it starts and shows signs of life as it goes, so a unit
that waits in Ray's queue is not taken for one that hangs.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pipelines.engine.events import (
    Alive,
    LongSteps,
    UnitAgain,
    UnitDone,
    UnitFailure,
    attempt,
    one_line,
)

Unit = TypeVar("Unit")
Result = TypeVar("Result")

#: Attempts after a crash of the worker (not after an exception).
MAX_RETRIES = 3
#: Attempts after a crash in all, those included whose node was lost: spot nodes come and go.
MAX_CRASHES = 20
#: Attempts after a stall.
MAX_STALLS = 1
_WAIT_SECONDS = 0.5
#: For a task of a Ray of our own to say its first word, once a worker is free for it.
_START_SECONDS = 30.0
#: Between a crash and the next attempt: for Ray to take note of what is gone.
_AGAIN_SECONDS = 1.0


@dataclass(slots=True)
class _Attempt:
    """A task that Ray has.

    Attributes:
        index: of its unit.
        node: that it runs on; empty while it waits in Ray's queue.
        heard: when it was last heard of, by the clock of the loop; None while it waits.
    """

    index: int
    node: str = ""
    heard: float | None = None


@dataclass(slots=True)
class Tasks:
    """The units of a run: which wait, which Ray has, and what has happened to them."""

    work: Callable[[Any], Iterator[Any]]
    units: Sequence[Any]
    stall_seconds: float
    own_workers: int = 0
    """Workers of a Ray of our own; 0 for a cluster, whose cores may be another's for hours."""
    _waiting: list[int] = field(init=False)
    _later: list[tuple[float, int]] = field(default_factory=list)
    _running: dict[Any, _Attempt] = field(default_factory=dict)
    _crashed_on: dict[int, list[str]] = field(default_factory=dict)
    _stalls: Counter[int] = field(default_factory=Counter)
    _clock: float = 0.0
    _seen: float = field(default_factory=time.monotonic)
    _task: Any = None

    def __post_init__(self) -> None:
        import ray

        self._waiting = list(range(len(self.units)))[::-1]
        self._task = ray.remote(num_cpus=1, max_retries=0, num_returns="streaming")(_attempt)

    @property
    def left(self) -> bool:
        """Whether a unit has not ended."""
        return bool(self._waiting or self._later or self._running)

    def submit(self, at_once: int) -> None:
        """Give Ray tasks until it has so many."""
        now = time.monotonic()
        due = [index for when, index in self._later if when <= now]
        self._later = [(when, index) for when, index in self._later if when > now]
        self._waiting += due
        while self._waiting and len(self._running) < at_once:
            index = self._waiting.pop()
            generator = self._task.remote(self.work, index, self.units[index])
            self._running[generator] = _Attempt(index)

    def advance(self) -> Iterator[tuple[int, Any]]:
        """What came in within a moment, and what is to be said of it."""
        import ray

        if not self._running:
            time.sleep(_WAIT_SECONDS)
            return
        ready: list[Any] = ray.wait(
            list(self._running), num_returns=1, timeout=_WAIT_SECONDS, fetch_local=False
        )[0]
        self._pass_time()
        self._expect_starts()
        for generator in ready:
            yield from self._take(generator)
        yield from self._stop_stalled()

    def cancel_all(self) -> None:
        """End what goes on."""
        import ray

        for generator in self._running:
            ray.cancel(generator, force=True)

    def _pass_time(self) -> None:
        """Advance the clock; a time in which this process was held up is not the units'."""
        now = time.monotonic()
        self._clock += min(now - self._seen, 2 * _WAIT_SECONDS)
        self._seen = now

    def _expect_starts(self) -> None:
        """Begin to time tasks that a free worker must have started.

        A worker that is stuck before its first word (in an import from a mount that hangs) would
        look like one that waits in Ray's queue for ever.
        """
        free = self.own_workers - sum(one.heard is not None for one in self._running.values())
        for running in self._running.values():  # in the order in which Ray got them
            if free <= 0:
                return
            if running.heard is None:
                running.heard = self._clock + _START_SECONDS
                free -= 1

    def _take(self, generator: Any) -> Iterator[tuple[int, Any]]:
        """The next result of a task, or its end."""
        import ray

        running = self._running[generator]
        try:
            index, event = ray.get(next(generator))
        except StopIteration:
            del self._running[generator]
        except ray.exceptions.RayError as error:
            del self._running[generator]
            yield running.index, self._after_crash(running, error)
        else:
            running.heard = self._clock
            if isinstance(event, Alive):
                running.node = event.node or running.node
            else:
                yield index, event

    def _after_crash(self, running: _Attempt, error: Exception) -> UnitFailure | UnitAgain:
        index, reason = running.index, one_line(error)[:300]
        if not _is_crash(error):
            return UnitFailure(index, reason, str(error))
        nodes = self._crashed_on.setdefault(index, [])
        nodes.append(running.node)
        if len(nodes) > MAX_RETRIES and _own_fault(nodes):
            return UnitFailure(index, f"the worker died {len(nodes)} times: {reason}", str(error))
        self._later.append((time.monotonic() + _AGAIN_SECONDS, index))
        return UnitAgain(index, "crashed", reason)

    def _stop_stalled(self) -> Iterator[tuple[int, UnitFailure | UnitAgain]]:
        """Cancel what has not been heard of for long, and nothing that has a word waiting."""
        import ray

        if not self.stall_seconds:
            return
        silent = [
            generator
            for generator, running in self._running.items()
            if running.heard is not None and self._clock - running.heard >= self.stall_seconds
        ]
        for generator in silent:
            if ray.wait([generator], timeout=0, fetch_local=False)[0]:
                continue
            index = self._running.pop(generator).index
            ray.cancel(generator, force=True)
            self._stalls[index] += 1
            detail = f"no progress for {self.stall_seconds:g} s (--stall-timeout)"
            if self._stalls[index] > MAX_STALLS:
                text = f"{detail}, {self._stalls[index]} times: it was cancelled"
                yield index, UnitFailure(index, text, "")
            else:
                self._later.append((time.monotonic() + _AGAIN_SECONDS, index))
                yield index, UnitAgain(index, "stalled", detail)


def _attempt(
    work: Callable[[Unit], Iterator[Result]], index: int, unit: Unit
) -> Iterator[tuple[int, Result | UnitFailure | UnitDone | Alive]]:
    """The task: says where it has started, then does the unit."""
    import ray

    yield index, Alive(ray.get_runtime_context().get_node_id())
    yield from attempt(work.watched if isinstance(work, LongSteps) else work, index, unit)


def _is_crash(error: Exception) -> bool:
    """Whether a worker or its machine went away, rather than Ray refusing the task."""
    import ray

    return not isinstance(error, (ray.exceptions.RayTaskError, ray.exceptions.TaskCancelledError))


def _own_fault(nodes: Sequence[str]) -> bool:
    """Whether a unit has lost its worker too often, not counting nodes that were lost whole."""
    import ray

    if len(nodes) > MAX_CRASHES:
        return True
    known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    lost = {node["NodeID"] for node in known if not node["Alive"]}
    return sum(node not in lost for node in nodes) > MAX_RETRIES
