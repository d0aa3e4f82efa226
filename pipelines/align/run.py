"""align: the similarities of shards computed anew with CLIP, and their documents aligned by these.

One shard becomes one shard of the same number: keys, source spans and rejects are carried over,
images stay as they are. A conversion in all other respects: plan, lease, resume, commit, manifest.
What is planned comes from the sidecars, so that a start reads no tar; a worker compares every
member with its sha256 in the samples table before it uses it.
"""

import hashlib
import os
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

from mmdata.errors import BadInputError, UserError
from mmdata.shards.naming import MANIFEST_NAME, TAR, shard_of
from mmdata.sources.records import Segment
from mmdata.storage.files import facts_of, read_bytes, same_file
from mmdata.storage.paths import expand_paths
from mmdata.storage.urls import absolute, check_writable
from mmdata.versions import clip_versions, codec_versions
from pipelines.align.options import Align
from pipelines.align.unit import AlignJob, align_unit, read_input_sidecar
from pipelines.clip.backend import clip_byte_options, describe_clip, images_per_second
from pipelines.clip.model import ClipSpec
from pipelines.conversion.output import earlier_plan
from pipelines.conversion.plan import (
    ConversionPlan,
    ConversionUnit,
    PlanInput,
    SegmentScan,
    fingerprint_of,
)
from pipelines.conversion.result import ConversionResult
from pipelines.conversion.run_plan import run_plan
from pipelines.conversion.task import JobRun
from pipelines.engine.run_units import terminate_as_interrupt
from schemas.document import FORMAT_VERSION
from schemas.manifest import Manifest, Sidecar

#: Rough rate of one core that only copies.
_IMAGES_PER_SECOND = 2000.0


def align(options: Align, *, quiet: bool = False) -> ConversionResult:
    """Write shards with similarities and alignment by CLIP; again, it goes on where it stopped.

    Args:
        options: see `Align`.
        quiet: no progress bar.

    Raises:
        UserError: it cannot start as asked; nothing was written.
        BadInputError: the shards are not a conversion of ours, or not a whole one.
    """
    check_writable(options.output, "--output")
    output = absolute(options.output)
    paths = _find_shards(options.shards)
    folder = os.path.dirname(paths[0])
    if same_file(folder, output):
        raise UserError(
            f"--output {options.output}: the shards are read from there; choose another folder"
        )
    manifest = _read_manifest(folder)
    inputs, sidecars = _read_inputs(paths, manifest)
    before = earlier_plan(output, overwrite=options.overwrite)
    with terminate_as_interrupt():
        clip = describe_clip(options, options.ray_address)
        plan = _make_plan(options, manifest, inputs, sidecars, clip)
        job = AlignJob(
            clip=clip,
            aligned=manifest.fingerprint,
            min_similarity=options.min_similarity,
            keep_text_only=options.keep_text_only,
        )
        job_run = JobRun(
            job, align_unit, "align", images_per_second(clip, _IMAGES_PER_SECOND), clip
        )
        return run_plan(options, job_run, plan, before, output, quiet=quiet)


def _find_shards(specs: Sequence[str]) -> list[str]:
    """The shards in order of their numbers, which begin at 0 and have no gaps.

    Raises:
        UserError: they do not, or lie in several folders.
        BadInputError: an argument stands for nothing.
    """
    expansion = expand_paths(specs, (TAR,))
    if expansion.problems:
        raise BadInputError("; ".join(f"{path}: {why}" for path, why in expansion.problems[:20]))
    paths = sorted({absolute(path) for path in expansion.files})
    if not paths:
        raise UserError("no shards given: name a folder, .tar files, globs or {000..041} ranges")
    folders = sorted({os.path.dirname(path) for path in paths})
    if len(folders) > 1:
        raise UserError(
            f"shards of one folder are aligned at a time, got {len(folders)}: {folders[0]}, "
            f"{folders[1]}"
        )
    for number, path in enumerate(paths):
        if shard_of(os.path.basename(path)) != (number, TAR):
            raise UserError(
                f"{path}: expected shard {number}: shards keep their numbers, and an output has "
                "all from 0 on; name the whole folder"
            )
    return paths


def _read_manifest(folder: str) -> Manifest:
    """The manifest of the conversion that is to be aligned.

    Raises:
        BadInputError: there is none, so it is not complete or not ours.
    """
    path = os.path.join(folder, MANIFEST_NAME)
    try:
        manifest = msgspec.json.decode(read_bytes(path), type=Manifest)
    except FileNotFoundError as error:
        raise BadInputError(
            f"{path}: no such file: the shards are not ours, or their conversion is not complete; "
            "run it to its end first"
        ) from error
    except (OSError, msgspec.DecodeError) as error:
        raise BadInputError(f"{path}: cannot be read: {error}") from error
    if manifest.format_version != FORMAT_VERSION or manifest.layout != "interleaved":
        raise BadInputError(
            f"{path}: expected interleaved shards of format {FORMAT_VERSION}, got "
            f"{manifest.layout} of format {manifest.format_version}"
        )
    return manifest


def _read_inputs(paths: Sequence[str], manifest: Manifest) -> tuple[list[PlanInput], list[Sidecar]]:
    """Every shard by its sidecar.

    Raises:
        BadInputError: all whose sidecar is missing, or does not fit shard and manifest.
    """
    inputs, sidecars, problems = [], [], []
    for path in paths:
        try:
            raw, sidecar = read_input_sidecar(path)
            facts = facts_of(path)
            if facts.size != sidecar.bytes:
                raise BadInputError(f"{path}: {facts.size} bytes, expected {sidecar.bytes}")
            if sidecar.indexed:
                raise BadInputError(
                    f"{path}: made by others and only indexed here; mmdata repair writes its "
                    "samples as shards of ours, which can be aligned"
                )
            if sidecar.fingerprint != manifest.fingerprint:
                raise BadInputError(f"{path}: of another conversion than {MANIFEST_NAME}")
        except (OSError, BadInputError) as error:
            problems.append(str(error))
            continue
        sidecars.append(sidecar)
        inputs.append(
            PlanInput(
                path=path,
                name=os.path.basename(path),
                bytes=sidecar.bytes,
                version=facts.version,
                segments=[Segment(path, end=sidecar.bytes)],
                scans=[_scan(raw, sidecar)],
            )
        )
    if problems:
        raise BadInputError("; ".join(problems[:20]) + "; mmdata validate says more")
    return inputs, sidecars


def _scan(raw: bytes, sidecar: Sidecar) -> SegmentScan:
    """The counts of a shard, in the terms of a conversion's; its checksum is the sidecar's."""
    tally = sidecar.tally
    return SegmentScan(
        records=tally.records,
        crc32=zlib.crc32(raw),
        record_bytes=max(0, sidecar.bytes - tally.image_bytes * 4 // 3),
        probed_records=tally.records,
        probed_images=tally.images,
        probed_found=tally.images,
        probed_bytes=tally.image_bytes,
        looked_in="inside",
    )


def _sha256_of_all(sidecars: Sequence[Sidecar]) -> str:
    """One hash over the contents of all shards and of what stands beside them."""
    digest = hashlib.sha256()
    for sidecar in sidecars:
        for one in (sidecar.sha256, sidecar.samples_sha256, sidecar.rejects_sha256):
            digest.update(one.encode())
    return digest.hexdigest()


def _make_plan(
    options: Align,
    manifest: Manifest,
    inputs: list[PlanInput],
    sidecars: list[Sidecar],
    clip: ClipSpec,
) -> ConversionPlan:
    """One unit a shard."""
    units = [
        ConversionUnit(
            segment=entry.segments[0],
            file=entry.name,
            first_record=0,
            num_records=sidecar.tally.records + sidecar.tally.other_splits,
            first_ordinal=sidecar.first_ordinal,
            first_shard=number,
            num_shards=1,
        )
        for number, (entry, sidecar) in enumerate(zip(inputs, sidecars, strict=True))
    ]
    byte_options: dict[str, Any] = {
        "min_similarity": options.min_similarity,
        "keep_text_only": options.keep_text_only,
        **clip_byte_options(clip),
        "aligned": manifest.fingerprint,
        "aligned_options": manifest.options,
        "aligned_versions": manifest.versions,
        "aligned_sha256": _sha256_of_all(sidecars),
    }
    versions = codec_versions() | clip_versions()
    return ConversionPlan(
        format_version=FORMAT_VERSION,
        kind=manifest.kind,
        inputs=inputs,
        excluded=manifest.excluded_inputs,
        docs_per_shard=max((sidecar.tally.records for sidecar in sidecars), default=0),
        units=units,
        options=byte_options,
        versions=versions,
        fingerprint=fingerprint_of(manifest.kind, inputs, byte_options, versions),
    )
