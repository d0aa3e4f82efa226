"""A pool of Ray actors that hold something heavy, and the calls that tasks make to them.

The one exception to the rule that nothing large goes through the object store: a call carries one
batch (some MB of pixels), each task has a bounded number of them under way, and the store is made
large enough for these. An actor whose process dies is started again and its calls are repeated:
what it computes depends on the call alone.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mmdata.errors import MMDataError, UserError

_RESTARTS = 3
#: Calls that a GPU's actor has in hand: while one waits for the GPU, the next is brought to it,
#: and while a file is opened or ended, the other's images are computed.
_GPU_CALLS = 2
_REPORT_SECONDS = 10.0
_LOOK_SECONDS = 1.0
#: For Ray to take note of a death before the actor is called again.
_RESTART_SECONDS = 1.0


class ActorError(MMDataError):
    """A call to an actor came to nothing."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Busy:
    """How much of its time an actor worked.

    Attributes:
        busy_seconds: with at least one call in hand.
        seconds: from the first call to the end of the last.
    """

    busy_seconds: float
    seconds: float


class Meter:
    """Measures the time in which at least one call is in hand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._busy = self._since = self._first = self._last = 0.0

    def __enter__(self) -> None:
        self.begin()

    def __exit__(self, *error: object) -> None:
        self.end()

    def begin(self) -> None:
        """A call is in hand from now on."""
        with self._lock:
            now = time.monotonic()
            self._first = self._first or now
            if self._calls == 0:
                self._since = now
            self._calls += 1

    def end(self) -> None:
        """One call less is in hand."""
        with self._lock:
            self._calls -= 1
            self._last = time.monotonic()
            if self._calls == 0:
                self._busy += self._last - self._since

    def report(self) -> Busy:
        """So far."""
        return Busy(self._busy, self._last - self._first)


class _Actor:
    """The actor itself: an object made in its process, whose methods are called by name."""

    def __init__(self, holder: Callable[[Any], Any], argument: Any) -> None:
        self._meter = Meter()
        self._error = ""
        self._held: Any = None
        try:
            self._held = holder(argument)
        except MMDataError as error:  # told to who asks, since Ray would start it again
            self._error = str(error)

    def problem(self) -> str:
        """Why it cannot work, or nothing."""
        return self._error

    def call(self, method: str, batch: Any) -> Any:
        with self._meter:
            return getattr(self._held, method)(batch)

    def results(self, method: str, batch: Any) -> Iterator[Any]:
        yield None  # it has begun: until then it waits for what the actor does for others
        with self._meter:
            yield from getattr(self._held, method)(batch)

    def report(self) -> Busy:
        return self._meter.report()


@dataclass(slots=True)
class ActorPool:
    """Actors that live as long as a session of Ray.

    Attributes:
        holder: makes what an actor holds, from `argument`.
        argument: picklable.
        names: one an actor; tasks find them by these.
        gpu: whether they share the GPUs evenly; else each takes a core.
        bytes_in_flight: that calls hold in the object store at once.
        reports: how busy each was, when the pool has stopped.
    """

    holder: Callable[[Any], Any]
    argument: Any
    names: tuple[str, ...]
    gpu: bool
    bytes_in_flight: int
    reports: list[Busy] = field(default_factory=list)
    _actors: list[Any] = field(default_factory=list)

    @property
    def num_cpus(self) -> int:
        """Cores that they take."""
        return len(self.names)

    @property
    def calls_at_once(self) -> int:
        """Calls that all of them together work on at a time."""
        return len(self.names) * (_GPU_CALLS if self.gpu else 1)

    def start(self) -> None:
        """Start them and wait until they are ready.

        Raises:
            UserError: there is no GPU, or what they hold cannot be made.
        """
        import ray

        share: dict[str, Any] = {"num_cpus": 1, "max_concurrency": 1}
        if self.gpu:
            resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            gpus = resources.get("GPU", 0.0)
            if gpus < 1:
                raise UserError("actors on GPUs: Ray knows no GPU; compute on the CPU")
            each = -(-len(self.names) // int(gpus))
            share = {"num_cpus": 1, "num_gpus": 1 / each, "max_concurrency": _GPU_CALLS}
        kind: Any = ray.remote(_Actor)
        self._actors = [
            kind.options(
                name=name, max_restarts=_RESTARTS, max_task_retries=_RESTARTS, **share
            ).remote(self.holder, self.argument)
            for name in self.names
        ]
        try:
            problems = ray.get([actor.problem.remote() for actor in self._actors])
        except ray.exceptions.RayError as error:
            raise UserError(f"the actors did not start: {_one_line(error)}") from error
        if any(problems):
            raise UserError(next(filter(None, problems)))

    def stop(self) -> None:
        """Ask how busy they were, and end them."""
        import ray

        with suppress(ray.exceptions.RayError):
            calls = [actor.report.remote() for actor in self._actors]
            self.reports = ray.get(calls, timeout=_REPORT_SECONDS)
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []


#: Starts a method on a batch; what it returns waits for the result.
Call = Callable[[str, Any], Callable[[], Any]]


def actor_calls(names: Sequence[str]) -> list[Call]:
    """In a task: how to call each actor of a pool."""
    import ray

    return [_call(ray.get_actor(name)) for name in names]


def _call(actor: Any) -> Call:
    def call(method: str, batch: Any) -> Callable[[], Any]:
        reference = actor.call.remote(method, batch)
        return lambda: _result(reference)

    return call


def actor_results(name: str, method: str, batch: Any, *, stall_seconds: float) -> Iterator[Any]:
    """In a task: what a generator method of an actor yields, from its start each time it is run.

    Yields None as well while the actor is waited for. An actor that dies is started again by Ray,
    and the method run again, some times; one that yields nothing for too long is ended first, once.

    Args:
        name: of the actor.
        method: of what it holds.
        batch: for it.
        stall_seconds: without anything, after which it hangs; 0: never.

    Raises:
        ActorError: it hung twice, died too often, or refuses the batch.
    """
    import ray

    stalls = 0
    for crashes in range(_RESTARTS + 1):
        actor = ray.get_actor(name)
        try:
            yield from _patient(actor, method, batch, stall_seconds)
        except _StalledError as error:
            ray.kill(actor, no_restart=False)
            stalls += 1
            if stalls > 1:
                raise ActorError(
                    f"no progress for {stall_seconds:g} s (--stall-timeout), {stalls} times"
                ) from error
        except ray.exceptions.RayActorError as error:
            if crashes == _RESTARTS:
                raise _died(error) from error
            time.sleep(_RESTART_SECONDS)
        except ray.exceptions.RayTaskError as error:
            raise _cause(error) from error
        else:
            return


class _StalledError(Exception):
    """Nothing came of an actor for too long."""


def _patient(actor: Any, method: str, batch: Any, stall_seconds: float) -> Iterator[Any]:
    import ray

    # Ray's own retries would leave out as many results as came before the crash.
    streaming = actor.results.options(num_returns="streaming", max_task_retries=0)
    generator = streaming.remote(method, batch)
    heard: float | None = None
    while True:
        ready, _ = ray.wait([generator], timeout=_LOOK_SECONDS, fetch_local=False)
        if ready:
            try:
                reference = next(generator)
            except StopIteration:
                return
            yield ray.get(reference)
            heard = time.monotonic()
        elif stall_seconds and heard is not None and time.monotonic() - heard >= stall_seconds:
            raise _StalledError
        else:
            yield None


def _result(reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise _cause(error) from error
    except ray.exceptions.RayActorError as error:
        raise _died(error) from error


def _cause(error: Any) -> Exception:
    """What a method raised; ours as one line."""
    if isinstance(error.cause, MMDataError):
        return ActorError(str(error.cause))
    return error if isinstance(error, Exception) else ActorError(str(error))


def _died(error: Exception) -> ActorError:
    return ActorError(f"an actor died too often: {_one_line(error)}; run the command again")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
