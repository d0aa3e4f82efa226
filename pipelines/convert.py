"""The run of any conversion: plan, lease, resume, work, manifest.

What differs between kinds of input is the recipe; everything here is common to them. Nothing is
written before the plan stands and every input was read through; what was committed stays.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from mmdata.errors import (
    EXIT_DONE,
    EXIT_FINDINGS,
    EXIT_INTERRUPTED,
    BadInputError,
    MMDataError,
    UserError,
)
from mmdata.sources.records import Segment
from mmdata.storage.lease import Lease
from mmdata.storage.paths import expand_paths
from mmdata.versions import codec_versions
from pipelines.config import ConvertMmc4
from pipelines.engine import (
    UnitDone,
    UnitFailure,
    choose_workers,
    run_units,
    terminate_as_interrupt,
)
from pipelines.output import (
    add_tally,
    check_is_ours,
    clear,
    committed,
    forget_manifest,
    lacks_images,
    sweep,
    write_manifest,
)
from pipelines.plan import (
    Plan,
    PlanInput,
    SegmentScan,
    differences,
    input_names,
    load_plan,
    make_plan,
    save_plan,
)
from pipelines.progress import Progress
from pipelines.space import check_space
from pipelines.units import Recipe, Tick, UnitTask, convert_unit
from schemas.manifest import ExcludedInput, Tally

#: Rough rates of one core, to decide whether a Ray is worth starting.
_SCAN_BYTES_PER_SECOND = 60e6
_IMAGES_PER_SECOND = 1200.0


@dataclass(slots=True)
class ConversionResult:
    """What a run came to.

    Attributes:
        plan: what was to be done.
        tally: of every shard that is committed, by this run or before.
        shards_written: by this run.
        shards_kept: committed before, and left as they were.
        shards_left: not there yet (after --limit, failures or an interruption).
        failures: units that failed, with their reason.
        complete: the manifest is written.
        interrupted: Ctrl-C or SIGTERM.
        limited: stopped at --limit.
        dry_run: only the plan was made.
        seconds: how long the work took.
    """

    plan: Plan
    output: str
    tally: Tally = field(default_factory=Tally)
    shards_written: int = 0
    shards_kept: int = 0
    shards_left: int = 0
    failures: list[tuple[str, UnitFailure]] = field(default_factory=list)
    complete: bool = False
    interrupted: bool = False
    limited: bool = False
    dry_run: bool = False
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 done, 1 some units failed, 3 interrupted."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        return EXIT_FINDINGS if self.failures else EXIT_DONE


def run_conversion(
    options: ConvertMmc4,
    recipe: Recipe,
    *,
    suffixes: tuple[str, ...],
    list_segments: Callable[[str], list[Segment]],
    byte_options: dict[str, Any],
    quiet: bool,
) -> ConversionResult:
    """Plan and run a conversion.

    Args:
        options: of the command.
        recipe: how its records become samples.
        suffixes: endings of the files that a folder of inputs stands for.
        list_segments: the segments of an input; raises BadInputError.
        byte_options: the options that change the shards' bytes.
        quiet: no progress bar.
    """
    output = os.path.abspath(options.output)
    if not options.docs:
        raise UserError("no input was named: give files, folders, globs or {0..9} ranges")
    if "://" in options.output:
        raise UserError(f"--output {options.output}: only local folders can be written to")
    before = None if options.overwrite else load_plan(output)
    if not options.overwrite:
        check_is_ours(output, before)
    with terminate_as_interrupt():
        inputs, excluded = _count_inputs(
            options, recipe, suffixes, list_segments, before, quiet=quiet
        )
        plan = make_plan(
            recipe.kind,
            inputs,
            excluded,
            docs_per_shard=options.docs_per_shard,
            num_shards=options.num_shards,
            options=byte_options,
            versions=codec_versions(),
        )
        if before is not None and before.fingerprint != plan.fingerprint:
            raise UserError(
                f"{output}: holds another conversion; use --overwrite or another folder. "
                + "; ".join(differences(before, plan)[:10])
            )
        if options.dry_run:
            return ConversionResult(plan, output, dry_run=True, shards_left=plan.num_shards)
        os.makedirs(output, exist_ok=True)
        with Lease(output) as lease:
            return _run(options, recipe, plan, output, lease, quiet=quiet)


def _run(
    options: ConvertMmc4,
    recipe: Recipe,
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
    tasks = _tasks(options, recipe, plan, output, lease, result)
    if not options.ignore_free_space:
        check_space(plan, output, sum(len(task.shards) for task in tasks))
    save_plan(plan, output)
    if tasks:
        forget_manifest(output)
    wanted = sum(len(task.shards) for task in tasks)
    workers = choose_workers(options.workers, _work_seconds(plan, wanted), options.ray_address)
    with Progress(
        "convert",
        total=sum(_records(task) for task in tasks),
        quiet=quiet or not tasks,
    ) as progress:
        try:
            events = run_units(
                convert_unit, tasks, workers=workers, ray_address=options.ray_address
            )
            with closing(events):
                for index, event in events:
                    if isinstance(event, Tick):
                        progress.advance(event)
                    elif isinstance(event, UnitFailure):
                        result.failures.append((tasks[index].unit.segment.label, event))
        except KeyboardInterrupt:
            result.interrupted = True
        result.seconds = progress.seconds
    _sum_up(result, tasks)
    if not result.shards_left and not result.interrupted:
        write_manifest(output, plan)
        result.complete = True
    return result


def _sum_up(result: ConversionResult, tasks: Sequence[UnitTask]) -> None:
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
    options: ConvertMmc4,
    recipe: Recipe,
    plan: Plan,
    output: str,
    lease: Lease,
    result: ConversionResult,
) -> list[UnitTask]:
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
                    recipe=recipe,
                    output=output,
                    lease_path=lease.path,
                    run=lease.holder.run,
                    fingerprint=plan.fingerprint,
                    versions=plan.versions,
                    shards=tuple(missing),
                    refresh_missing=options.refresh_missing,
                )
            )
    return tasks


def _records(task: UnitTask) -> int:
    unit = task.unit
    places = [shard - unit.first_shard for shard in task.shards]
    return sum(unit.cut(place + 1) - unit.cut(place) for place in places)


def _work_seconds(plan: Plan, shards: int) -> float:
    share = shards / max(plan.num_shards, 1)
    return plan.estimate().images * share / _IMAGES_PER_SECOND


def _count_inputs(
    options: ConvertMmc4,
    recipe: Recipe,
    suffixes: tuple[str, ...],
    list_segments: Callable[[str], list[Segment]],
    before: Plan | None,
    *,
    quiet: bool,
) -> tuple[list[PlanInput], list[ExcludedInput]]:
    """Count every input's records, or take the counts of an earlier plan.

    Raises:
        BadInputError: with every input that is missing or damaged.
    """
    expansion = expand_paths(options.docs, suffixes)
    problems = dict(expansion.problems)
    twice = {path for path in expansion.files if expansion.files.count(path) > 1}
    problems |= {path: "is given twice" for path in sorted(twice)}
    known = {entry.path: entry for entry in before.inputs} if before else {}
    entries: list[PlanInput] = []
    for path, name in zip(expansion.files, input_names(expansion.files), strict=True):
        try:
            facts = os.stat(path)
            entry = known.get(os.path.abspath(path))
            if entry and (entry.bytes, entry.mtime_ns) == (facts.st_size, facts.st_mtime_ns):
                entry.name = name
                entries.append(entry)
                continue
            entries.append(
                PlanInput(
                    path=os.path.abspath(path),
                    name=name,
                    bytes=facts.st_size,
                    mtime_ns=facts.st_mtime_ns,
                    segments=list_segments(os.path.abspath(path)),
                    scans=[],
                )
            )
        except (BadInputError, OSError) as error:
            problems[path] = _without_path(str(error), path)
    _scan(options, recipe, [entry for entry in entries if not entry.scans], problems, quiet=quiet)
    good = [entry for entry in entries if entry.path not in problems]
    return _checked(options, good, problems)


def _checked(
    options: ConvertMmc4, good: list[PlanInput], problems: dict[str, str]
) -> tuple[list[PlanInput], list[ExcludedInput]]:
    """Refuse bad inputs, or list them as excluded when that was asked for."""
    if problems and not options.skip_bad_inputs:
        lines = [f"{path}: {problem}" for path, problem in problems.items()]
        if len(lines) == 1:
            raise BadInputError(lines[0])
        raise BadInputError(
            f"{len(lines)} inputs cannot be used (--skip-bad-inputs leaves them out):\n  "
            + "\n  ".join(lines)
        )
    if not good:
        raise BadInputError(
            "no input is left: " + "; ".join(f"{p}: {w}" for p, w in problems.items())
        )
    excluded = [
        ExcludedInput(file=os.path.basename(path), problem=problem)
        for path, problem in problems.items()
    ]
    return good, excluded


@dataclass(frozen=True, slots=True)
class _ScanTask:
    recipe: Recipe
    segment: Segment


def _scan_segment(task: _ScanTask) -> Iterator[SegmentScan | MMDataError]:
    """One segment's count, or what is wrong with it."""
    try:
        yield task.recipe.scan(task.segment)
    except MMDataError as error:
        yield error


def _scan(
    options: ConvertMmc4,
    recipe: Recipe,
    entries: list[PlanInput],
    problems: dict[str, str],
    *,
    quiet: bool,
) -> None:
    """Fill in the counts of new inputs; damaged ones go to `problems`."""
    tasks = [_ScanTask(recipe, segment) for entry in entries for segment in entry.segments]
    scans: list[SegmentScan | None] = [None] * len(tasks)
    seconds = sum(entry.bytes for entry in entries) / _SCAN_BYTES_PER_SECOND
    workers = choose_workers(options.workers, seconds, options.ray_address)
    if seconds < 5 and options.ray_address is None:
        workers = 0
    with Progress("count", total=len(tasks), quiet=quiet or len(tasks) < 8, unit="file") as bar:
        events = run_units(_scan_segment, tasks, workers=workers, ray_address=options.ray_address)
        with closing(events):
            for index, event in events:
                path = tasks[index].segment.path
                if isinstance(event, SegmentScan):
                    scans[index] = event
                elif isinstance(event, UnitDone):
                    bar.advance(Tick(1, 0, 0, 0))
                elif isinstance(event, MMDataError):
                    problems[path] = _without_path(str(event), path)
                else:
                    problems[path] = event.error
    found = iter(scans)
    for entry in entries:
        entry.scans = [scan for scan in (next(found) for _ in entry.segments) if scan]


def _without_path(text: str, path: str) -> str:
    for prefix in (os.path.abspath(path), path):
        if text.startswith(prefix):
            return text[len(prefix) :].removeprefix(":").strip()
    return text
