"""The inputs of a conversion: found, read to their end, counted; the bad ones named all at once."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from mmdata.errors import BadInputError, MMDataError, words_of
from mmdata.sources.records import Segment
from mmdata.storage.files import facts_of
from mmdata.storage.paths import expand_paths
from mmdata.storage.urls import absolute
from mmdata.wording import plural
from pipelines.conversion.options import ShardRunOptions
from pipelines.conversion.plan import ConversionPlan, PlanInput, SegmentScan, input_names
from pipelines.engine.events import LongSteps, Tick, UnitAgain, UnitDone, UnitFailure
from pipelines.engine.progress import Progress
from pipelines.engine.run_units import choose_workers, run_units
from schemas.manifest import ExcludedInput

#: Rough rate of one core, to decide whether a Ray is worth starting.
_SCAN_BYTES_PER_SECOND = 60e6
_RAY_WORTH_SCAN_SECONDS = 5.0


#: Counts a segment's records and looks for its first images; picklable; raises BadInputError.
Scan = Callable[[Segment], SegmentScan]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an input cannot be used.

    Attributes:
        path: as the user would find it.
        text: what is wrong and what to do, for the screen.
        short: the same without places on this machine, for the manifest.
    """

    path: str
    text: str
    short: str


def count_inputs(
    options: ShardRunOptions,
    scan: Scan,
    specs: Sequence[str],
    suffixes: tuple[str, ...],
    list_segments: Callable[[str], list[Segment]],
    before: ConversionPlan | None,
    *,
    quiet: bool,
) -> tuple[list[PlanInput], list[ExcludedInput]]:
    """Count every input's records, or take the counts of an earlier plan.

    Args:
        options: of the command.
        scan: counts a segment.
        specs: files, folders, globs and ranges as the user named them.
        suffixes: endings of the files that a folder stands for.
        list_segments: the segments of an input; raises BadInputError.
        before: the plan of an earlier run into the same output.
        quiet: no progress bar.

    Returns:
        The good inputs, and those left out with --skip-bad-inputs.

    Raises:
        BadInputError: with every input that is missing or damaged.
    """
    expansion = expand_paths(specs, suffixes)
    problems = [Problem(path, text, text) for path, text in expansion.problems]
    paths = [absolute(path) for path in expansion.files]
    times = Counter(paths)
    problems += [
        Problem(path, "is given twice", "was given twice") for path in times if times[path] > 1
    ]
    unique = list(times)
    known = {entry.path: entry for entry in before.inputs} if before else {}
    entries: list[PlanInput] = []
    for path, name in zip(unique, input_names(unique), strict=True):
        try:
            entries.append(_entry(path, name, known.get(path), list_segments))
        except (BadInputError, OSError) as error:
            problems.append(_problem(path, error))
    problems += _scan(options, scan, [entry for entry in entries if not entry.scans], quiet=quiet)
    bad = {problem.path for problem in problems}
    good = [entry for entry in entries if entry.path not in bad]
    if problems and not options.skip_bad_inputs:
        raise BadInputError(_told(problems, " (--skip-bad-inputs leaves them out)"))
    if not good:
        raise BadInputError("no input is left: " + _told(problems))
    return good, _excluded(problems, unique)


def _entry(
    path: str,
    name: str,
    before: PlanInput | None,
    list_segments: Callable[[str], list[Segment]],
) -> PlanInput:
    """An input as it is now; with the earlier counts when the file has not changed."""
    facts = facts_of(path)
    if before and (before.bytes, before.version) == (facts.size, facts.version):
        before.name = name
        return before
    return PlanInput(
        path=path,
        name=name,
        bytes=facts.size,
        version=facts.version,
        segments=list_segments(path),
        scans=[],
    )


def _told(problems: list[Problem], hint: str = "") -> str:
    """All problems for the screen."""
    lines = [f"{problem.path}: {problem.text}" for problem in problems]
    if len(lines) == 1:
        return lines[0]
    return f"{plural(len(lines), 'input')} cannot be used{hint}:\n  " + "\n  ".join(lines)


def _excluded(problems: list[Problem], found: list[str]) -> list[ExcludedInput]:
    """The inputs that are left out, named like the others: relative to their common folder."""
    names = dict(zip(found, input_names(found), strict=True))
    return [
        ExcludedInput(
            file=names.get(problem.path, os.path.basename(problem.path)), problem=problem.short
        )
        for problem in problems
    ]


def _problem(path: str, error: Exception) -> Problem:
    if isinstance(error, BadInputError):
        text = str(error).removeprefix(path).removeprefix(":").strip()
        return Problem(path, text, error.short or text)
    if isinstance(error, OSError):
        text = f"cannot be read: {error.strerror or type(error).__name__}"
        return Problem(path, text, text)
    return Problem(path, words_of(error), words_of(error))


@dataclass(frozen=True, slots=True)
class _ScanTask:
    scan: Scan
    segments: tuple[Segment, ...]
    first: int


def _scan_segments(task: _ScanTask) -> Iterator[tuple[int, SegmentScan | Problem]]:
    """Each segment's number, and its count or what is wrong with it."""
    for index, segment in enumerate(task.segments, start=task.first):
        try:
            yield index, task.scan(segment)
        except MMDataError as error:
            yield index, _problem(segment.path, error)


def _batches(scan: Scan, segments: list[Segment], workers: int) -> list[_ScanTask]:
    """Segments a task: a few of them where there are many, since a Ray task costs 10 ms."""
    size = max(1, min(16, len(segments) // (8 * max(workers, 1))))
    return [
        _ScanTask(scan, tuple(segments[at : at + size]), at) for at in range(0, len(segments), size)
    ]


def _scan(
    options: ShardRunOptions, scan: Scan, entries: list[PlanInput], *, quiet: bool
) -> list[Problem]:
    """Fill in the counts of new inputs; returns what is wrong with damaged ones."""
    segments = [segment for entry in entries for segment in entry.segments]
    scans: list[SegmentScan | None] = [None] * len(segments)
    problems: dict[str, Problem] = {}
    seconds = sum(entry.bytes for entry in entries) / _SCAN_BYTES_PER_SECOND
    workers = choose_workers(options.workers, seconds, options.ray_address)
    if seconds < _RAY_WORTH_SCAN_SECONDS and options.ray_address is None:
        workers = 0
    tasks = _batches(scan, segments, workers or os.cpu_count() or 1)
    few = len(segments) < 8
    with Progress("count", total=len(segments), quiet=quiet or few, unit="file") as bar:
        events = run_units(
            LongSteps(_scan_segments),
            tasks,
            workers=workers,
            ray_address=options.ray_address,
            stall_seconds=options.stall_timeout,
        )
        with closing(events):
            for index, event in events:
                if isinstance(event, UnitFailure):
                    for number, segment in enumerate(tasks[index].segments, tasks[index].first):
                        if scans[number] is None:
                            problem = Problem(segment.path, event.error, event.error)
                            problems.setdefault(segment.path, problem)
                elif isinstance(event, UnitAgain):
                    bar.say(
                        f"{tasks[index].segments[0].label}: {event.detail}; it is counted again"
                    )
                elif not isinstance(event, UnitDone):
                    bar.advance(Tick(1, 0, 0, 0))
                    number, found_there = event
                    if isinstance(found_there, SegmentScan):
                        scans[number] = found_there
                    else:
                        problems[segments[number].path] = found_there
    found = iter(scans)
    for entry in entries:
        entry.scans = [one for one in (next(found) for _ in entry.segments) if one]
    return list(problems.values())
