"""The run of any conversion: plan, lease, resume, work, manifest.

What differs between kinds of input is the recipe; everything here is common to them. Nothing is
written before the plan stands and every input was read through; what was committed stays.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from mmdata.errors import BadInputError, MMDataError, UserError
from mmdata.similarity import ClipSpec
from mmdata.sources.records import Segment
from mmdata.storage.paths import expand_paths
from pipelines.clip import clip_byte_options, images_per_second
from pipelines.config import ConvertMmc4
from pipelines.engine import (
    UnitDone,
    choose_workers,
    run_units,
    terminate_as_interrupt,
)
from pipelines.output import (
    check_is_ours,
)
from pipelines.plan import (
    Plan,
    PlanInput,
    SegmentScan,
    input_names,
    load_plan,
    make_plan,
)
from pipelines.progress import Progress
from pipelines.result import ConversionResult
from pipelines.run import Work, run_plan
from pipelines.units import Recipe, Tick, conversion_versions, convert_unit
from schemas.manifest import ExcludedInput

Job = TypeVar("Job")

#: Rough rates of one core, to decide whether a Ray is worth starting.
_SCAN_BYTES_PER_SECOND = 60e6
_IMAGES_PER_SECOND = 1200.0


def run_conversion(
    options: ConvertMmc4,
    recipe: Recipe,
    *,
    suffixes: tuple[str, ...],
    list_segments: Callable[[str], list[Segment]],
    byte_options: dict[str, Any],
    quiet: bool,
    clip: ClipSpec | None = None,
) -> ConversionResult:
    """Plan and run a conversion.

    Args:
        options: of the command.
        recipe: how its records become samples.
        suffixes: endings of the files that a folder of inputs stands for.
        list_segments: the segments of an input; raises BadInputError.
        byte_options: the options that change the shards' bytes.
        quiet: no progress bar.
        clip: computes the similarities; the recipe then leaves documents unaligned.
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
            options=byte_options | (clip_byte_options(clip) if clip else {}),
            versions=conversion_versions(clip),
        )
        rate = images_per_second(clip, _IMAGES_PER_SECOND)
        work = Work(recipe, convert_unit, "convert", rate, clip)
        return run_plan(options, work, plan, before, output, quiet=quiet)


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
