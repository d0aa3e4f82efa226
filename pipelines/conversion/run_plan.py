"""The part of a run that writes shards: lease, resume, work, manifest; what was committed stays."""

import time
from contextlib import closing
from dataclasses import replace
from math import inf

from mmdata.shards.writer import LeaseLostError
from mmdata.storage.files import make_folder
from mmdata.storage.lease import Lease, holds
from pipelines.clip.backend import Scored, make_pool, total_scored
from pipelines.conversion.dedupe import draft_fingerprint, finish_drafts, must_refresh, standing
from pipelines.conversion.options import ShardRunOptions
from pipelines.conversion.output import (
    check_unchanged,
    clear,
    clearable_bytes,
    forget_manifest,
    forget_shard,
    sweep,
    write_manifest,
)
from pipelines.conversion.output_files import OutputFiles, look_at
from pipelines.conversion.plan import ConversionPlan, refuse_another, save_plan
from pipelines.conversion.pseudonymise import public_plan
from pipelines.conversion.result import ConversionResult
from pipelines.conversion.run_log import RunLog, open_log
from pipelines.conversion.space import check_space
from pipelines.conversion.sums import sum_up
from pipelines.conversion.task import AnyJob, JobRun, UnitTask
from pipelines.engine.events import Tick, UnitAgain, UnitFailure
from pipelines.engine.progress import Progress
from pipelines.engine.run_units import choose_workers, run_units


def run_plan(
    options: ShardRunOptions,
    job_run: JobRun[AnyJob],
    plan: ConversionPlan,
    before: ConversionPlan | None,
    output: str,
    *,
    quiet: bool,
) -> ConversionResult:
    """Write the shards of a plan that are not there yet, and the manifest when all are.

    Args:
        options: of the command.
        job_run: what the tasks do.
        plan: of the shards.
        before: the plan of an earlier run into the same folder, or None.
        output: the folder.
        quiet: no progress bar.

    Raises:
        UserError: the folder holds another conversion, or the disk cannot hold this one.
    """
    refuse_another(before, plan, output)
    if options.dry_run:
        return _estimated(options, job_run, plan, output)
    make_folder(output)
    with open_log(options.log_json) as log, Lease(output) as lease:
        if not options.overwrite:
            check_unchanged(plan, output)
        log.write("start", output=output, records=plan.num_records, shards=plan.num_shards)
        result = _run(options, job_run, plan, output, lease, log, quiet=quiet)
        log.end(result)
        return result


def _estimated(
    options: ShardRunOptions, job_run: JobRun[AnyJob], plan: ConversionPlan, output: str
) -> ConversionResult:
    """A dry run: what there is to do, and roughly how long it would take."""
    seconds = _work_seconds(plan, plan.num_shards, job_run.images_per_second)
    workers = choose_workers(options.workers, seconds, options.ray_address)
    result = ConversionResult(plan, output, dry_run=True, shards_left=plan.num_shards)
    result.workers, result.seconds = workers, seconds / max(workers, 1)
    return result


def _run(
    options: ShardRunOptions,
    job_run: JobRun[AnyJob],
    plan: ConversionPlan,
    output: str,
    lease: Lease,
    log: RunLog,
    *,
    quiet: bool,
) -> ConversionResult:
    """The part of a run that writes, under the lease."""
    result = ConversionResult(plan, output)
    sweep(output)
    if options.overwrite:
        if not options.ignore_free_space:
            check_space(plan, output, plan.num_shards, freed_bytes=clearable_bytes(output))
        clear(output)
    files = look_at(output)
    tasks = _tasks(options, job_run, lease, result, files)
    if not options.overwrite and not options.ignore_free_space:
        check_space(plan, output, sum(len(task.shards) for task in tasks))
    save_plan(public_plan(plan), output)
    if tasks:
        forget_manifest(output)
    _do(options, job_run, tasks, result, log, quiet=quiet)
    undone = False
    if not result.interrupted and draft_fingerprint(plan) != plan.fingerprint:
        undone = _finish(options, job_run.key_prefix, lease, result)
        if not undone:
            log.tell_duplicates(plan, output)
    sweep(output)  # what a worker that was killed left; its unit was done again
    if tasks or draft_fingerprint(plan) != plan.fingerprint:
        files = look_at(output)
    sum_up(result, job_run, tasks, files)
    if not result.shards_left and not result.interrupted and not undone:
        if not holds(lease.path, lease.holder.run):
            raise LeaseLostError(f"{output}: another run has taken over; nothing is lost")
        manifest = write_manifest(output, plan, files, energon=options.energon)
        result.groups = manifest.groups or None
        result.complete = True
    return result


def _finish(
    options: ShardRunOptions, key_prefix: str, lease: Lease, result: ConversionResult
) -> bool:
    """Drop duplicates, where that was asked for; whether shards are left that lack it."""
    start = time.monotonic()
    try:
        failures = finish_drafts(
            result.plan,
            result.output,
            lease.path,
            lease.holder.run,
            key_prefix,
            workers=options.workers,
            ray_address=options.ray_address,
            stall_seconds=options.stall_timeout,
        )
    except KeyboardInterrupt:
        result.interrupted = True
        return True
    result.failures += failures
    result.seconds += time.monotonic() - start
    return bool(failures)


def _do(
    options: ShardRunOptions,
    job_run: JobRun[AnyJob],
    tasks: list[UnitTask[AnyJob]],
    result: ConversionResult,
    log: RunLog,
    *,
    quiet: bool,
) -> None:
    """Run the tasks; failures and an interruption go to the result."""
    address = options.ray_address
    wanted = sum(len(task.shards) for task in tasks)
    seconds = _work_seconds(result.plan, wanted, job_run.images_per_second)
    workers = choose_workers(options.workers, inf if options.clip_actors else seconds, address)
    pool = None
    if job_run.clip is not None and tasks:
        pool = make_pool(job_run.clip, actors=options.clip_actors, workers=workers, address=address)
        tasks = [replace(task, pool=pool.names if pool else ()) for task in tasks]
    total = sum(_records(task) for task in tasks)
    scored: list[Scored] = []
    with Progress(job_run.title, total=total, quiet=quiet or not tasks) as progress:
        try:
            events = run_units(
                job_run.run_unit,
                tasks,
                workers=workers,
                ray_address=address,
                service=pool,
                stall_seconds=options.stall_timeout,
            )
            with closing(events):
                for index, event in events:
                    log.tell(result.plan, tasks[index], event)
                    if isinstance(event, Tick):
                        progress.advance(event)
                    elif isinstance(event, Scored):
                        scored.append(event)
                    elif isinstance(event, UnitFailure):
                        result.failures.append((tasks[index].unit.label, event))
                    elif isinstance(event, UnitAgain):
                        label = tasks[index].unit.label
                        result.again.append((label, event))
                        progress.say(f"{label}: {event.detail}; it is run again")
        except KeyboardInterrupt:
            result.interrupted = True
        result.seconds = progress.seconds
    log.tell_rest(result.plan, tasks)
    result.scored = total_scored(scored, pool)


def _tasks(
    options: ShardRunOptions,
    job_run: JobRun[AnyJob],
    lease: Lease,
    result: ConversionResult,
    files: OutputFiles,
) -> list[UnitTask[AnyJob]]:
    """The units that still lack shards."""
    plan, output = result.plan, result.output
    tasks = []
    for unit in plan.units:
        missing = []
        for shard in range(unit.first_shard, unit.first_shard + unit.num_shards):
            begin = unit.first_ordinal + unit.places(shard)[0]
            sidecar = standing(plan, output, shard, verify=options.verify_committed, files=files)
            if sidecar is None and options.verify_committed:
                forget_shard(output, shard)  # damaged: it must not look committed to a worker
            stale = job_run.is_stale is not None and job_run.is_stale(output, shard)
            if sidecar and not stale and not (options.refresh_missing and must_refresh(sidecar)):
                result.shards_kept += 1
            elif options.limit is not None and begin >= options.limit:
                result.limited = True
            else:
                missing.append(shard)
        if missing:
            tasks.append(
                UnitTask(
                    unit=unit,
                    job=job_run.job,
                    output=output,
                    lease_path=lease.path,
                    run=lease.holder.run,
                    fingerprint=draft_fingerprint(plan),
                    versions=plan.versions,
                    shards=tuple(missing),
                    refresh_missing=options.refresh_missing,
                    clip=job_run.clip,
                    energon=options.energon,
                    counts_unplaced=job_run.counts_unplaced,
                )
            )
    return tasks


def _records(task: UnitTask[AnyJob]) -> int:
    return sum(end - begin for begin, end in map(task.unit.places, task.shards))


def _work_seconds(plan: ConversionPlan, shards: int, images_per_second: float) -> float:
    return plan.estimate().images * shards / max(plan.num_shards, 1) / images_per_second
