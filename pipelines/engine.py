"""Run units of work in this process or over Ray, and report what came of each.

A unit is any picklable value; the work is a generator function that takes one and yields small
results as it goes (a committed shard, a tick of progress). Nothing large may be yielded: images
and shards go to storage, never through Ray's object store. One Ray task a unit: after a crash of
its worker the unit is run again (so work must skip what is already committed); an exception that
the work raises is not retried, it is reported with its unit. Ray's own retries are off: they
replay a generator and leave out as many results as were taken before the crash, the ending too.
"""

import os
import signal
import socket
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Protocol, Self, TypeVar

from mmdata.errors import MMDataError, UserError

Unit = TypeVar("Unit")
Result = TypeVar("Result")

#: Starting and stopping a Ray of our own takes about 5 s: shorter jobs are done in the process.
RAY_WORTH_SECONDS = 10.0
#: Attempts after a crash of the worker (not after an exception).
MAX_RETRIES = 3
_OBJECT_STORE_BYTES = 100 * 2**20
_WAIT_SECONDS = 0.5
_CONNECT_SECONDS = 10.0


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


def choose_workers(requested: int | None, work_seconds: float, ray_address: str | None) -> int:
    """How many workers to use: as asked, else all cores, else 0 for what is done sooner in here.

    Args:
        requested: what the user said, None for nothing.
        work_seconds: how long one core would take, roughly.
        ray_address: a cluster; then 0 means all its cores.
    """
    if ray_address is not None:
        if requested == 0:
            raise UserError("--workers 0 works in this process: leave out --ray-address")
        return requested or 0
    if requested is not None:
        return requested
    return 0 if work_seconds < RAY_WORTH_SECONDS else os.cpu_count() or 1


def run_units(
    work: Callable[[Unit], Iterator[Result]],
    units: Sequence[Unit],
    *,
    workers: int,
    ray_address: str | None = None,
    service: Service | None = None,
) -> Generator[tuple[int, Result | UnitFailure | UnitDone], None, None]:
    """Run every unit; yields (unit's index, a result of it or how it ended) as they come.

    Args:
        work: takes a unit, yields results.
        units: what to do, in order of preference.
        workers: processes; 0 for this one (with `ray_address`: all cores of the cluster).
        ray_address: address of a running cluster; None starts a Ray of our own.
        service: started with Ray and stopped with it.
    """
    if workers == 0 and ray_address is None:
        for index, unit in enumerate(units):
            yield from _attempt(work, index, unit)
        return
    with _RaySession(workers, ray_address, service) as session:
        yield from session.run(work, units)


def _attempt(
    work: Callable[[Unit], Iterator[Result]], index: int, unit: Unit
) -> Iterator[tuple[int, Result | UnitFailure | UnitDone]]:
    """One unit, with its exceptions turned into a report."""
    try:
        for result in work(unit):
            yield index, result
    # The border of a unit: whatever its records or the machine raise is reported, not lost.
    except Exception as error:  # noqa: BLE001
        yield index, UnitFailure(index, _one_line(error), traceback.format_exc())
    else:
        yield index, UnitDone(index)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, MMDataError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Within, SIGTERM raises KeyboardInterrupt, so that a run ends as it does on Ctrl-C."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _RaySession:
    """A connection to Ray for the time of one run."""

    def __init__(self, workers: int, address: str | None, service: Service | None = None) -> None:
        self._workers = workers
        self._address = address
        self._service = service
        self._concurrency = workers

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
        if self._concurrency == 0:
            resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            self._concurrency = max(1, int(resources.get("CPU", 1)))
        if self._service is not None:
            try:
                self._service.start()
            except BaseException:
                ray.shutdown()
                raise
        return self

    def run(
        self, work: Callable[[Unit], Iterator[Result]], units: Sequence[Unit]
    ) -> Iterator[tuple[int, Result | UnitFailure | UnitDone]]:
        """Keep as many tasks going as there are workers, and one more in wait for each."""
        import ray

        task: Any = ray.remote(num_cpus=1, max_retries=0, num_returns="streaming")(_attempt)
        waiting = list(range(len(units)))[::-1]
        crashes: Counter[int] = Counter()
        running: dict[Any, int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < 2 * self._concurrency:
                    index = waiting.pop()
                    running[task.remote(work, index, units[index])] = index
                ready: list[Any] = ray.wait(
                    list(running), num_returns=1, timeout=_WAIT_SECONDS, fetch_local=False
                )[0]
                for generator in ready:
                    index = running[generator]
                    try:
                        yield ray.get(next(generator))
                    except StopIteration:
                        del running[generator]
                    except ray.exceptions.RayError as error:
                        del running[generator]
                        crashes[index] += 1
                        if _is_crash(error) and crashes[index] <= MAX_RETRIES:
                            waiting.append(index)
                        else:
                            yield index, _given_up(index, crashes[index], error)
        finally:
            for generator in running:
                ray.cancel(generator, force=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import ray

        if self._service is not None:
            self._service.stop()
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Refuse a cluster that nobody answers for; Ray would wait for it for minutes.

    Raises:
        UserError: nothing listens there.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        return  # `auto` and the like: Ray's to find
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"Ray {address}: could not connect: {error}; is the cluster up, and is this its port? "
            "--workers 0 converts without Ray"
        ) from error


def _is_crash(error: Exception) -> bool:
    """Whether a worker or its machine went away, rather than Ray refusing the task."""
    import ray

    return not isinstance(error, (ray.exceptions.RayTaskError, ray.exceptions.TaskCancelledError))


def _given_up(index: int, times: int, error: Exception) -> UnitFailure:
    reason = _one_line(error)[:300]
    if _is_crash(error):
        reason = f"the worker died {times} times: {reason}"
    return UnitFailure(index, reason, str(error))
