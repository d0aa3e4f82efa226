"""Run units of work in this process or over Ray, and report what came of each.

A unit is any picklable value; the work is a generator function that takes one and yields small
results as it goes (a committed shard, a tick of progress), a few seconds apart: what waits for
another process yields `Alive` meanwhile, and what computes for longer is given as `LongSteps`, or
as `one_step` where it is one function.
Nothing large may be yielded: images and shards go to storage, never through Ray's object store.
One Ray task a unit: after a crash of its worker the unit is run again (so work must skip what is
already committed); an exception that the work raises is not retried, it is reported with its unit.
How Ray is driven: `ray_session.py`.
"""

import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from types import FrameType
from typing import TypeVar

from mmdata.errors import UserError
from pipelines.engine.events import Alive, Event, attempt
from pipelines.engine.ray_session import RaySession, Service

Unit = TypeVar("Unit")
Result = TypeVar("Result")

#: Starting and stopping a Ray of our own takes about 5 s: shorter jobs are done in the process.
RAY_WORTH_SECONDS = 10.0


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
    work: Callable[[Unit], Iterator[Result | Alive]],
    units: Sequence[Unit],
    *,
    workers: int,
    ray_address: str | None = None,
    service: Service | None = None,
    stall_seconds: float = 0.0,
) -> Generator[tuple[int, Result | Event], None, None]:
    """Run every unit; yields (unit's index, a result of it or how it ended) as they come.

    Args:
        work: takes a unit, yields results.
        units: what to do, in order of preference.
        workers: processes; 0 for this one (with `ray_address`: all cores of the cluster).
        ray_address: address of a running cluster; None starts a Ray of our own.
        service: started with Ray and stopped with it.
        stall_seconds: how long a unit at Ray may yield nothing, before it is cancelled and run
            once more; 0 for ever. Work in this process cannot be cancelled.

    Raises:
        UserError: Ray does not start, or the cluster cannot be reached.
        ClusterLostError: the head of the cluster went away.
    """
    if workers == 0 and ray_address is None:
        for index, unit in enumerate(units):
            events = attempt(work, index, unit)
            with closing(events):
                for place, event in events:
                    if not isinstance(event, Alive):
                        yield place, event
        return
    with RaySession(workers, ray_address, service, stall_seconds) as session:
        yield from session.run(work, units)


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
