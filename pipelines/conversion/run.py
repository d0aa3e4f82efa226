"""The run of any conversion: plan, lease, resume, work, manifest.

What differs between kinds of input is the job; everything here is common to them. Nothing is
written before the plan stands and every input was read through; what was committed stays.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from math import inf
from typing import Any, Protocol

from mmdata.errors import UserError
from mmdata.shards.writer import LeaseLostError
from mmdata.sources.fields import WantedField
from mmdata.sources.pseudonyms import Pseudonyms
from mmdata.sources.records import Segment
from mmdata.storage.files import make_folder
from mmdata.storage.lease import Lease, holds
from mmdata.storage.urls import absolute, check_writable
from pipelines.clip.backend import (
    Scored,
    clip_byte_options,
    images_per_second,
    make_pool,
    total_scored,
)
from pipelines.clip.model import ClipSpec
from pipelines.conversion.dedupe import draft_fingerprint, finish_drafts, must_refresh, standing
from pipelines.conversion.fields import check_fields
from pipelines.conversion.form import Probed, check_form
from pipelines.conversion.inputs import count_inputs
from pipelines.conversion.options import Conversion, RunOptions
from pipelines.conversion.output import (
    check_unchanged,
    clear,
    clearable_bytes,
    earlier_plan,
    forget_manifest,
    forget_shard,
    sweep,
    write_manifest,
)
from pipelines.conversion.output_files import OutputFiles, look_at
from pipelines.conversion.plan import Plan, make_plan, refuse_another, save_plan
from pipelines.conversion.policy import group_options
from pipelines.conversion.pseudonymise import hide_inputs, hide_units, public_plan
from pipelines.conversion.result import ConversionResult as ConversionResult
from pipelines.conversion.run_log import RunLog, open_log
from pipelines.conversion.space import check_space
from pipelines.conversion.split import Part, add_up, job_of, part_options, parts_of
from pipelines.conversion.sums import sum_up
from pipelines.conversion.task import AnyJob, CountedJob, Tick, UnitTask, conversion_versions
from pipelines.conversion.task import JobRun as JobRun
from pipelines.conversion.unit import convert_unit
from pipelines.engine.events import Alive
from pipelines.engine.progress import Progress
from pipelines.engine.run_units import (
    UnitAgain,
    UnitFailure,
    choose_workers,
    run_units,
    terminate_as_interrupt,
)
from schemas.manifest import ExcludedInput

#: Rough rate of one core, to decide whether a Ray is worth starting.
_IMAGES_PER_SECOND = 1200.0


class ConversionJob(CountedJob, Probed, Protocol):
    """What a conversion asks of its job before the work starts."""


def run_conversion(
    options: Conversion,
    job: ConversionJob,
    specs: Sequence[str],
    *,
    suffixes: tuple[str, ...],
    list_segments: Callable[[str], list[Segment]],
    byte_options: dict[str, Any],
    quiet: bool,
    clip: ClipSpec | None = None,
    excluded: Sequence[ExcludedInput] = (),
    names: Pseudonyms | None = None,
    wanted: Sequence[WantedField] = (),
    run: Callable[[UnitTask[Any]], Iterator[Tick | Scored | Alive]] | None = None,
    rate: float = _IMAGES_PER_SECOND,
    is_stale: Callable[[str, int], bool] | None = None,
) -> ConversionResult:
    """Plan and run a conversion.

    Args:
        options: of the command.
        job: how its records become samples.
        specs: the inputs as named: files, folders, globs, ranges.
        suffixes: endings of the files that a folder of inputs stands for.
        list_segments: the segments of an input; raises BadInputError.
        byte_options: the options that change the shards' bytes.
        quiet: no progress bar.
        clip: computes the similarities; the job then leaves documents unaligned.
        excluded: inputs that were left out before.
        names: put pseudonyms in place of the names of inputs in all that is written.
        wanted: fields of the records that options name.
        run, is_stale: see `JobRun`; rate: its `images_per_second` without CLIP.
    """
    _check_named(options, specs)
    output = absolute(options.output)
    byte_options = byte_options | (clip_byte_options(clip) if clip else {})
    byte_options |= group_options(job.policy.grouping)
    parts = parts_of(options, output)
    befores = [earlier_plan(part.folder, overwrite=options.overwrite) for part in parts]
    with terminate_as_interrupt():
        # A plan without the inputs' names cannot tell whether they were counted before.
        known = None if names else befores[0]
        inputs, left_out = count_inputs(
            options, job, specs, suffixes, list_segments, known, quiet=quiet
        )
        left_out = hide_inputs(inputs, [*excluded, *left_out], names)
        plans = [
            make_plan(
                job.kind,
                inputs,
                left_out,
                docs_per_shard=part.docs_per_shard(options.docs_per_shard),
                num_shards=options.num_shards,
                options=byte_options | part_options(part),
                versions=conversion_versions(clip),
            )
            for part in parts
        ]
        for plan in plans:
            hide_units(plan, names)
        for plan, before, part in zip(plans, befores, parts, strict=True):
            refuse_another(before, plan, part.folder)
        if befores[0] is None:  # else it was asked when that run began
            check_form(job, inputs, hidden=names is not None)
        job_runs = [_work(job, part, clip, run or convert_unit, rate, is_stale) for part in parts]
        check_fields(wanted, inputs)
        results = _run_parts(options, job_runs, plans, befores, parts, quiet=quiet)
    return add_up(parts, results, output)


def _check_named(options: Conversion, specs: Sequence[str]) -> None:
    if not specs:
        raise UserError("no input was named: give files, folders, globs or {0..9} ranges")
    check_writable(options.output, "--output")


def _run_parts(
    options: Conversion,
    job_runs: Sequence[JobRun[Any]],
    plans: Sequence[Plan],
    befores: Sequence[Plan | None],
    parts: Sequence[Part],
    *,
    quiet: bool,
) -> list[ConversionResult]:
    """One part after the other."""
    results = []
    for job_run, plan, before, part in zip(job_runs, plans, befores, parts, strict=True):
        results.append(run_plan(options, job_run, plan, before, part.folder, quiet=quiet))
        if results[-1].interrupted:
            break
    return results


def _work(
    job: Any,
    part: Part,
    clip: ClipSpec | None,
    run: Callable[[UnitTask[Any]], Iterator[Tick | Scored | Alive]],
    rate: float,
    is_stale: Callable[[str, int], bool] | None,
) -> JobRun[Any]:
    rate = images_per_second(clip, rate)
    title, job = f"convert {part.name}".strip(), job_of(job, part)
    return JobRun(job, run, title, rate, clip, job.key_prefix, part.is_first, is_stale)


def _estimated(
    options: RunOptions, job_run: JobRun[AnyJob], plan: Plan, output: str
) -> ConversionResult:
    """A dry run: what there is to do, and roughly how long it would take."""
    seconds = _work_seconds(plan, plan.num_shards, job_run.images_per_second)
    workers = choose_workers(options.workers, seconds, options.ray_address)
    result = ConversionResult(plan, output, dry_run=True, shards_left=plan.num_shards)
    result.workers, result.seconds = workers, seconds / max(workers, 1)
    return result


def run_plan(
    options: RunOptions,
    job_run: JobRun[AnyJob],
    plan: Plan,
    before: Plan | None,
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


def _run(
    options: RunOptions,
    job_run: JobRun[AnyJob],
    plan: Plan,
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


def _finish(options: RunOptions, key_prefix: str, lease: Lease, result: ConversionResult) -> bool:
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
    options: RunOptions,
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
    options: RunOptions,
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


def _work_seconds(plan: Plan, shards: int, images_per_second: float) -> float:
    return plan.estimate().images * shards / max(plan.num_shards, 1) / images_per_second
