"""`mmdata validate`: check shards in this process or over Ray, as a conversion runs.

A unit is one shard; what a worker sends back is bounded (findings by rule, a summary), and the
rules across shards (manifest, keys, sidecars that were swapped) run here on these summaries.
"""

import os
from collections import defaultdict
from collections.abc import Sequence

from mmdata.catalogue.find import find_shards
from mmdata.catalogue.shards import catalogue_shards
from mmdata.errors import UserError
from mmdata.shards.naming import MANIFEST_NAME
from mmdata.storage.atomic import write_atomically
from mmdata.storage.files import size_of
from mmdata.validation.across import compare_shards
from mmdata.validation.choosing import chosen_codes
from mmdata.validation.findings import Findings
from mmdata.validation.grouped import check_keys
from mmdata.validation.manifest_rules import DatasetFolder, check_folder, read_folder
from mmdata.validation.report import ReportBuilder, with_outlook
from mmdata.validation.shard import ShardResult, ShardTask, check_shard
from pipelines.engine.compute_each import compute_each
from pipelines.engine.events import UnitFailure
from pipelines.validate.forecast import forecast, judge_peer
from pipelines.validate.options import Validate
from schemas.validation import AcrossReport, Level, ValidationReport

#: What one core does of each level, in bytes a second, to guess whether Ray is worth its start.
_BYTES_PER_SECOND = {"structure": 20e9, "content": 600e6, "full": 80e6}


def validate(options: Validate) -> ValidationReport:
    """Check shards and what stands beside them.

    Raises:
        UserError: a path does not exist, a folder holds no shard, or Ray does not start; nothing
            was checked.
    """
    codes = chosen_codes(options.select, options.ignore)
    paths = find_shards(options.shards)
    other = find_shards(options.against) if options.against else []
    if other:
        check_keys(paths, other)
    by_folder: dict[str, list[int]] = defaultdict(list)
    for index, path in enumerate(paths):
        by_folder[os.path.dirname(path) or "."].append(index)
    builder = ReportBuilder(options.max_findings, codes, options.fail_on)
    folders: list[tuple[DatasetFolder, Findings, list[int]]] = []
    for parent, indices in by_folder.items():
        findings = Findings(os.path.join(parent, MANIFEST_NAME), options.max_findings)
        names = {os.path.basename(paths[index]) for index in indices}
        folders.append((read_folder(parent, names, findings), findings, indices))
    owed = {folder.path for folder, _, _ in folders if folder.ours}
    tasks = [
        ShardTask(
            path=path,
            level=options.depth,
            max_findings=options.max_findings,
            checksum=options.checksum,
            owed=(os.path.dirname(path) or ".") in owed,
        )
        for path in paths
    ]
    results = run_tasks(tasks, options)
    for index, result in enumerate(results):
        builder.add(index, result.counts, result.findings)
    for place, (folder, findings, indices) in enumerate(folders, start=len(paths)):
        check_folder(folder, [results[index] for index in indices], findings)
        builder.add(place, findings.counts, findings.kept)
    across = None
    if options.across or options.against:
        findings = Findings(paths[0] if paths else "", options.max_findings)
        across = compare_shards(paths, other, findings)
        place = len(paths) + len(folders)
        builder.add(place, findings.counts, findings.kept, findings.shards)
    report = _build(builder, options.depth, results, across)
    if options.looks_ahead:
        holdings = catalogue_shards(paths)
        report = with_outlook(
            report,
            forecast(options, holdings) if options.forecast else None,
            judge_peer(options, holdings) if options.peer else None,
        )
    if options.json is not None:
        _write_json(report, options.json)
    return report


def run_tasks(tasks: Sequence[ShardTask], options: Validate) -> list[ShardResult]:
    """Every task's result, in the order of the tasks; a failed one is a finding, not a crash."""
    results = compute_each(
        check_shard,
        tasks,
        options,
        seconds=sum(size_of(task.path) for task in tasks) / _BYTES_PER_SECOND[options.depth],
        shards_of=lambda task: [task.path],
        doing="the check",
        again="it is checked again",
    )
    return [
        _failed(task, result) if isinstance(result, UnitFailure) else result
        for task, result in zip(tasks, results, strict=True)
    ]


def _failed(task: ShardTask, failure: UnitFailure) -> ShardResult:
    findings = Findings(task.path, task.max_findings)
    findings.add("TAR012", "a check that ends", failure.error)
    return ShardResult(path=task.path, counts=findings.counts, findings=findings.kept)


def _build(
    builder: ReportBuilder,
    level: Level,
    results: Sequence[ShardResult],
    across: AcrossReport | None,
) -> ValidationReport:
    return builder.build(
        level,
        shards=len(results),
        samples=sum(result.num_samples for result in results),
        images=sum(result.num_images or 0 for result in results),
        uncounted=sum(result.num_images is None for result in results),
        num_bytes=sum(result.num_bytes for result in results),
        across=across,
    )


def _write_json(report: ValidationReport, path: str) -> None:
    try:
        write_atomically(path, report.to_json().encode())
    except OSError as error:
        raise UserError(f"--json {path}: {error.strerror or error}") from error
