"""repair: what can be saved of damaged shards, written anew into another folder.

One shard becomes one shard; a record is a sample of it, found or lost. A conversion in all other
respects: plan, lease, resume, commit, manifest. Shards are read twice, once to count what is in
them, since a header that is gone makes every count that stands elsewhere doubtful.
"""

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec

from mmdata.errors import UserError
from mmdata.shards.naming import KEY_DIGITS, MANIFEST_NAME, TAR
from mmdata.storage.files import read_bytes, same_file
from mmdata.storage.urls import absolute, check_writable
from mmdata.versions import codec_versions
from pipelines.conversion.inputs import count_inputs
from pipelines.conversion.output import earlier_plan
from pipelines.conversion.plan import (
    ConversionPlan,
    ConversionUnit,
    PlanInput,
    ShardScan,
    fingerprint_of,
)
from pipelines.conversion.result import ConversionResult
from pipelines.conversion.run_plan import run_plan
from pipelines.conversion.task import JobRun
from pipelines.engine.events import LongSteps
from pipelines.engine.run_units import terminate_as_interrupt
from pipelines.repair.options import Repair
from pipelines.repair.unit import RepairJob, list_segments, repair_unit, scan_shard
from schemas.document import FORMAT_VERSION
from schemas.manifest import ExcludedInput, Kind, Layout, Manifest

#: Rough rate of one core.
_IMAGES_PER_SECOND = 400.0


def repair(options: Repair, *, quiet: bool = False) -> ConversionResult:
    """Write what can be saved of shards; again, it goes on where it stopped.

    Args:
        options: see `Repair`.
        quiet: no progress bar.

    Raises:
        UserError: it cannot start as asked; nothing was written.
        BadInputError: files that are no tars; all of them are named.
    """
    if not options.shards:
        raise UserError("no shards given: name a folder, .tar files, globs or {000..041} ranges")
    check_writable(options.output, "--output")
    output = absolute(options.output)
    before = earlier_plan(output, overwrite=options.overwrite)
    with terminate_as_interrupt():
        inputs, excluded = count_inputs(
            options, scan_shard, options.shards, (TAR,), list_segments, before, quiet=quiet
        )
        for entry in inputs:
            if same_file(os.path.dirname(entry.path), output):
                raise UserError(
                    f"--output {options.output}: shards are read from there; choose another folder"
                )
        job = _job(options, inputs)
        plan = _make_plan(job, inputs, excluded)
        job_run = JobRun(
            job, LongSteps(repair_unit), "repair", _IMAGES_PER_SECOND, one_shard_each=True
        )
        return run_plan(options, job_run, plan, before, output, quiet=quiet)


def _scans(inputs: Sequence[PlanInput]) -> list[ShardScan]:
    return [entry.scans[0].shard or ShardScan() for entry in inputs]


def _job(options: Repair, inputs: Sequence[PlanInput]) -> RepairJob:
    """How the shards are repaired, by what is in them.

    Raises:
        UserError: they are of both layouts.
    """
    layout = _layout(inputs)
    held = [scan for entry, scan in zip(inputs, _scans(inputs), strict=True) if entry.records]
    prefix = held[0].first_key[:-KEY_DIGITS] if held else ""
    keep = all(scan.first_key[:-KEY_DIGITS] == prefix and scan.first_key for scan in held)
    keep = keep and all(last.last_key < first.first_key for last, first in pairwise(held))
    return RepairJob(
        kind=_kind(inputs, layout),
        layout=layout,
        keep_keys=keep,
        key_prefix=prefix if keep else "",
        max_pixels=options.max_pixels,
        keep_text_only=options.keep_text_only,
    )


def _layout(inputs: Sequence[PlanInput]) -> Layout:
    found: dict[Layout, str] = {}
    for entry, scan in zip(inputs, _scans(inputs), strict=True):
        if scan.layout:
            found.setdefault(scan.layout, entry.path)
    if len(found) > 1:
        raise UserError(
            f"{found['interleaved']} holds documents, {found['pairs']} pairs of picture and text; "
            "repair them apart"
        )
    return next(iter(found), "interleaved")


def _manifest(inputs: Sequence[PlanInput]) -> Manifest | None:
    """The manifest beside the shards, where all are of one folder and it can be read."""
    folders = {os.path.dirname(entry.path) for entry in inputs}
    if len(folders) != 1:
        return None
    try:
        raw = read_bytes(os.path.join(*folders, MANIFEST_NAME))
        return msgspec.json.decode(raw, type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None  # it is one of the things that repair is for


def _kind(inputs: Sequence[PlanInput], layout: Layout) -> Kind:
    manifest = _manifest(inputs)
    if manifest is not None:
        return manifest.kind
    return "laion" if layout == "pairs" else "mmc4"


def _make_plan(
    job: RepairJob, inputs: list[PlanInput], excluded: list[ExcludedInput]
) -> ConversionPlan:
    """One unit, and one shard, for each tar that holds or held samples."""
    units: list[ConversionUnit] = []
    ordinal = 0
    for entry, scan in zip(inputs, _scans(inputs), strict=True):
        if not entry.records:
            continue
        first = int(scan.first_key[-KEY_DIGITS:]) if job.keep_keys else ordinal
        units.append(
            ConversionUnit(
                segment=entry.segments[0],
                file=entry.name,
                first_record=0,
                num_records=entry.records,
                first_ordinal=first,
                first_shard=len(units),
                num_shards=1,
            )
        )
        ordinal += entry.records
    options: dict[str, Any] = {
        "repair": True,
        "layout": job.layout,
        "keep_keys": job.keep_keys,
        "key_prefix": job.key_prefix,
        "max_pixels": job.max_pixels,
        "keep_text_only": job.keep_text_only,
    }
    if (manifest := _manifest(inputs)) is not None:
        options["repaired"] = manifest.fingerprint
        options["repaired_options"] = manifest.options
        options["repaired_versions"] = manifest.versions
    versions = codec_versions()
    return ConversionPlan(
        format_version=FORMAT_VERSION,
        kind=job.kind,
        inputs=inputs,
        excluded=excluded,
        docs_per_shard=max((unit.num_records for unit in units), default=0),
        units=units,
        options=options,
        versions=versions,
        fingerprint=fingerprint_of(job.kind, inputs, options, versions),
    )
