"""The part of a run that writes: lease, resume, work, manifest; the same whatever is worked on.

Nothing is written before the plan stands; what was committed stays, and what is committed is
decided by the sidecars on disk alone, never by what tasks have told.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from math import inf
from typing import Generic, Protocol, TypeVar

from mmdata.errors import UserError
from mmdata.similarity import ClipSpec
from mmdata.storage.lease import Lease
from pipelines.clip import Scored, make_pool, total_scored
from pipelines.engine import UnitFailure, choose_workers, run_units
from pipelines.output import (
    add_tally,
    clear,
    committed,
    forget_manifest,
    lacks_images,
    sweep,
    write_manifest,
)
from pipelines.plan import Plan, differences, save_plan
from pipelines.progress import Progress
from pipelines.result import ConversionResult
from pipelines.space import check_space
from pipelines.units import Tick, UnitTask

Job = TypeVar("Job")


@dataclass(frozen=True, slots=True)
class Work(Generic[Job]):
    """What the tasks of a run do.

    Attributes:
        recipe: given to each of them.
        run: does one unit.
        title: of the progress bar.
        images_per_second: rough rate of one core.
        clip: the model that scores, or None.
    """

    recipe: Job
    run: Callable[[UnitTask[Job]], Iterator[Tick | Scored]]
    title: str
    images_per_second: float
    clip: ClipSpec | None = None


class RunOptions(Protocol):
    """What a run is told, whatever it works on."""

    @property
    def workers(self) -> int | None: ...
    @property
    def ray_address(self) -> str | None: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def overwrite(self) -> bool: ...
    @property
    def refresh_missing(self) -> bool: ...
    @property
    def verify_committed(self) -> bool: ...
    @property
    def ignore_free_space(self) -> bool: ...
    @property
    def dry_run(self) -> bool: ...
    @property
    def clip_actors(self) -> int | None: ...


def run_plan(
    options: RunOptions,
    work: Work[Job],
    plan: Plan,
    before: Plan | None,
    output: str,
    *,
    quiet: bool,
) -> ConversionResult:
    """Write the shards of a plan that are not there yet, and the manifest when all are.

    Args:
        options: of the command.
        work: what the tasks do.
        plan: of the shards.
        before: the plan of an earlier run into the same folder, or None.
        output: the folder.
        quiet: no progress bar.

    Raises:
        UserError: the folder holds another conversion, or the disk cannot hold this one.
    """
    if before is not None and before.fingerprint != plan.fingerprint:
        raise UserError(
            f"{output}: holds another conversion; use --overwrite or another folder. "
            + "; ".join(differences(before, plan)[:10])
        )
    if options.dry_run:
        return ConversionResult(plan, output, dry_run=True, shards_left=plan.num_shards)
    os.makedirs(output, exist_ok=True)
    with Lease(output) as lease:
        return _run(options, work, plan, output, lease, quiet=quiet)


def _run(
    options: RunOptions,
    work: Work[Job],
    plan: Plan,
    output: str,
    lease: Lease,
    *,
    quiet: bool,
) -> ConversionResult:
    """The part of a run that writes, under the lease."""
    result = ConversionResult(plan, output)
    if options.overwrite:
        clear(output)
    sweep(output)
    tasks = _tasks(options, work, plan, output, lease, result)
    if not options.ignore_free_space:
        check_space(plan, output, sum(len(task.shards) for task in tasks))
    save_plan(plan, output)
    if tasks:
        forget_manifest(output)
    _do(options, work, tasks, result, quiet=quiet)
    _sum_up(result, tasks)
    if not result.shards_left and not result.interrupted:
        write_manifest(output, plan)
        result.complete = True
    return result


def _do(
    options: RunOptions,
    work: Work[Job],
    tasks: list[UnitTask[Job]],
    result: ConversionResult,
    *,
    quiet: bool,
) -> None:
    """Run the tasks, here or over Ray."""
    address = options.ray_address
    share = sum(len(task.shards) for task in tasks) / max(result.plan.num_shards, 1)
    seconds = result.plan.estimate().images * share / work.images_per_second
    workers = choose_workers(options.workers, inf if options.clip_actors else seconds, address)
    pool = None
    if work.clip is not None and tasks:
        pool = make_pool(work.clip, actors=options.clip_actors, workers=workers, address=address)
        tasks = [replace(task, pool=pool.names if pool else ()) for task in tasks]
    total = sum(_records(task) for task in tasks)
    scored: list[Scored] = []
    with Progress(work.title, total=total, quiet=quiet or not tasks) as progress:
        try:
            events = run_units(work.run, tasks, workers=workers, ray_address=address, service=pool)
            with closing(events):
                for index, event in events:
                    if isinstance(event, Tick):
                        progress.advance(event)
                    elif isinstance(event, Scored):
                        scored.append(event)
                    elif isinstance(event, UnitFailure):
                        result.failures.append((tasks[index].unit.segment.label, event))
        except KeyboardInterrupt:
            result.interrupted = True
        result.seconds = progress.seconds
    result.scored = total_scored(scored, pool)


def _sum_up(result: ConversionResult, tasks: Sequence[UnitTask[Job]]) -> None:
    """What is committed now, by the sidecars on disk: they alone say what exists."""
    plan, output = result.plan, result.output
    planned = {shard for task in tasks for shard in task.shards}
    for shard in range(plan.num_shards):
        sidecar = committed(output, shard, plan.fingerprint)
        if sidecar is None:
            result.shards_left += 1
            continue
        add_tally(result.tally, sidecar.tally)
        if shard in planned:
            result.shards_written += 1
    failed = {label for label, _ in result.failures}
    for index, task in enumerate(tasks):
        label = task.unit.segment.label
        gone = [s for s in task.shards if committed(output, s, plan.fingerprint) is None]
        if gone and label not in failed and not result.interrupted:
            reason = f"ended without writing {len(gone)} of its shards; run the command again"
            result.failures.append((label, UnitFailure(index, reason, "")))


def _tasks(
    options: RunOptions,
    work: Work[Job],
    plan: Plan,
    output: str,
    lease: Lease,
    result: ConversionResult,
) -> list[UnitTask[Job]]:
    """The units that still lack shards."""
    tasks = []
    for unit in plan.units:
        missing = []
        for shard in range(unit.first_shard, unit.first_shard + unit.num_shards):
            begin = unit.first_ordinal + unit.cut(shard - unit.first_shard)
            sidecar = committed(output, shard, plan.fingerprint, verify=options.verify_committed)
            if sidecar and not (options.refresh_missing and lacks_images(sidecar)):
                result.shards_kept += 1
            elif options.limit is not None and begin >= options.limit:
                result.limited = True
            else:
                missing.append(shard)
        if missing:
            tasks.append(
                UnitTask(
                    unit=unit,
                    recipe=work.recipe,
                    output=output,
                    lease_path=lease.path,
                    run=lease.holder.run,
                    fingerprint=plan.fingerprint,
                    versions=plan.versions,
                    shards=tuple(missing),
                    refresh_missing=options.refresh_missing,
                    verify_committed=options.verify_committed,
                    clip=work.clip,
                )
            )
    return tasks


def _records(task: UnitTask[Job]) -> int:
    unit = task.unit
    places = [shard - unit.first_shard for shard in task.shards]
    return sum(unit.cut(place + 1) - unit.cut(place) for place in places)
