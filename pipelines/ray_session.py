"""A connection to Ray for the time of one run, and the tasks of the run over it.

Ray's own retries are off: after a crash they replay a generator and leave out as many results as
were taken before, the ending too. So the loop here runs a unit again by itself: after a crash of
its worker (a few times), after the loss of its node (many times: that is never the unit's fault),
and once after a stall. A task says when it starts and shows signs of life as it goes, so a unit
that waits in Ray's queue is not taken for one that hangs.
"""

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from mmdata.errors import UserError
from pipelines.events import (
    Alive,
    ClusterLostError,
    Event,
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
_OBJECT_STORE_BYTES = 100 * 2**20
_WAIT_SECONDS = 0.5
_CONNECT_SECONDS = 10.0
#: Between a crash and the next attempt: for Ray to take note of what is gone.
_AGAIN_SECONDS = 1.0
#: Between two looks at the cluster: is its head there, has it grown?
_LOOK_SECONDS = 5.0
#: Looks in a row at which the head does not answer, after which it is given up. Ray itself ends
#: the process without a word after 60 s.
_LOST_LOOKS = 4
_ANSWER_SECONDS = 3.0


class Service(Protocol):
    """What Ray holds beside the tasks, for them to call; without Ray it is not started."""

    @property
    def num_cpus(self) -> int:
        """Cores that it takes."""
        ...

    @property
    def bytes_in_flight(self) -> int:
        """Of calls to it, in the object store."""
        ...

    def start(self) -> None:
        """Called when Ray is there, before the first task."""
        ...

    def stop(self) -> None:
        """Called before Ray is stopped."""
        ...


class RaySession:
    """A connection to Ray for the time of one run."""

    def __init__(
        self,
        workers: int,
        address: str | None,
        service: Service | None = None,
        stall_seconds: float = 0.0,
    ) -> None:
        self._workers = workers
        self._address = address
        self._service = service
        self._stall_seconds = stall_seconds
        self._head = ""

    def __enter__(self) -> Self:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # The accelerator variables of this process are kept for the workers as they are.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self._address is None:
            options |= {
                "address": "local",
                "num_cpus": self._workers + (self._service.num_cpus if self._service else 0),
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES
                + (self._service.bytes_in_flight if self._service else 0),
            }
        else:
            _check_reachable(self._address)
            options["address"] = self._address
        on_terminate = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(**options)
        except SystemExit as error:  # SIGTERM meanwhile, which Ray answers with an exit of its own
            raise KeyboardInterrupt from error
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = self._address or "on this machine"
            raise UserError(
                f"Ray {where}: could not start or connect: {' '.join(str(error).split())}; "
                "--workers 0 converts without Ray"
            ) from error
        with suppress(ValueError):  # not the main thread: no handler was changed
            signal.signal(signal.SIGTERM, on_terminate)
        self._head = str(ray.get_runtime_context().gcs_address)
        if self._service is not None:
            try:
                self._service.start()
            except BaseException:
                ray.shutdown()
                raise
        return self

    def run(
        self, work: Callable[[Unit], Iterator[Result]], units: Sequence[Unit]
    ) -> Iterator[tuple[int, Result | Event]]:
        """Keep the workers busy until every unit has ended.

        Raises:
            ClusterLostError: the head of the cluster does not answer any more.
        """
        tasks = _Tasks(work, units, self._stall_seconds)
        cluster = _Cluster(self._head, self._address, self._workers)
        try:
            while tasks.left:
                cluster.look()
                tasks.submit(cluster.in_flight)
                yield from tasks.advance()
        finally:
            if not cluster.lost:
                tasks.cancel_all()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import ray

        # What a cluster without a head is asked would wait for it; leaving takes 5 s as it is.
        if self._service is not None and not isinstance(error, ClusterLostError):
            self._service.stop()
        ray.shutdown()


class _Cluster:
    """The cluster as it is from time to time."""

    def __init__(self, head: str, address: str | None, workers: int) -> None:
        self._head = head
        self._where = address or "on this machine"
        # A Ray of our own has as many cores as there are workers: one task more waits for each.
        # On a cluster the number of tasks is all that holds a run to its number of workers.
        self._fixed = 2 * workers if address is None else workers
        self._next_look = 0.0
        self._unanswered = 0
        self._cores = 1

    @property
    def lost(self) -> bool:
        """Whether its head has not answered for long."""
        return self._unanswered >= _LOST_LOOKS

    @property
    def in_flight(self) -> int:
        """Tasks to have at Ray; where no number was asked for, so many that the cluster grows."""
        return self._fixed or 2 * self._cores

    def look(self) -> None:
        """See whether its head is there and how many cores it has, once in a while.

        Raises:
            ClusterLostError: the head has not answered several times in a row.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        if not _answers(self._head):
            self._unanswered += 1
            if self.lost:
                raise ClusterLostError(
                    f"Ray {self._where}: its head at {self._head} is gone; what is written stays: "
                    "run the same command again when the cluster is up"
                )
            return
        self._unanswered = 0
        if not self._fixed:
            import ray

            resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            self._cores = max(1, int(resources.get("CPU", 1)))


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
class _Tasks:
    """The units of a run: which wait, which Ray has, and what has happened to them."""

    work: Callable[[Any], Iterator[Any]]
    units: Sequence[Any]
    stall_seconds: float
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
    yield from attempt(work, index, unit)


def _is_crash(error: Exception) -> bool:
    """Whether a worker or its machine went away, rather than Ray refusing the task."""
    import ray

    return not isinstance(error, (ray.exceptions.RayTaskError, ray.exceptions.TaskCancelledError))


def _own_fault(nodes: Sequence[str]) -> bool:
    """Whether a unit has lost its worker too often, not counting nodes that were lost whole."""
    import ray

    if len(nodes) > MAX_CRASHES:
        return True
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    return sum(node in alive for node in nodes) > MAX_RETRIES


def _check_reachable(address: str) -> None:
    """Refuse a cluster that nobody answers for; Ray would wait for it for minutes.

    Raises:
        UserError: nothing listens there.
    """
    try:
        _knock(address, _CONNECT_SECONDS)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"Ray {address}: could not connect: {error}; is the cluster up, and is this its port? "
            "--workers 0 converts without Ray"
        ) from error


def _answers(address: str) -> bool:
    try:
        _knock(address, _ANSWER_SECONDS)
    except OSError:
        return False
    return True


def _knock(address: str, seconds: float) -> None:
    """Open a connection and close it; without a host and a port (`auto`) there is no telling."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
