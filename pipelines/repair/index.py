"""index: what stands beside our shards, written beside shards that others made.

The tars stay as they are. Sidecars and manifest say `indexed`, so that the validator asks of such
shards what any reader needs and not what we promise of ours. Shards of ours have all of this; of
those, only Energon's index is written.
"""

import hashlib
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import msgspec

from mmdata.catalogue.find import find_shards
from mmdata.errors import EXIT_DONE, EXIT_FINDINGS, EXIT_INTERRUPTED, UserError
from mmdata.repair.describe import contents_of, describe, layout_of
from mmdata.shards.energon import META_FILES, write_meta, write_tar_index
from mmdata.shards.naming import (
    MANIFEST_NAME,
    PLAN_NAME,
    REJECTS,
    SAMPLES,
    SIDECAR,
    SIZES_NAME,
    TAR,
    TAR_INDEX,
)
from mmdata.shards.writer import LeaseLostError, encode_record, samples_table
from mmdata.storage.atomic import remove, write_atomically
from mmdata.storage.files import exists, list_names, local_file, mapped, read_bytes, size_of
from mmdata.storage.lease import Lease, holds
from mmdata.storage.paths import natural_key
from mmdata.storage.urls import absolute
from mmdata.versions import codec_versions
from pipelines.conversion.output import sweep
from pipelines.conversion.plan import fingerprint_of
from pipelines.engine.compute_each import compute_each
from pipelines.engine.events import UnitFailure
from pipelines.engine.run_units import terminate_as_interrupt
from pipelines.repair.options import Index
from schemas.document import FORMAT_VERSION
from schemas.manifest import Kind, Layout, Manifest, ManifestShard, Sidecar, SourceSpan, Tally

_BYTES_PER_SECOND = 400e6
_KINDS: dict[Layout, Kind] = {"interleaved": "mmc4", "pairs": "laion"}


@dataclass(slots=True)
class IndexResult:
    """What an indexing came to.

    Attributes:
        folders: that were indexed, with the samples of each.
        shards: that are indexed now.
        kept: of these, indexed before.
        tally: of all of them.
        failures: (shard, why it could not be indexed).
        interrupted: Ctrl-C or SIGTERM.
    """

    folders: dict[str, int] = field(default_factory=dict)
    shards: int = 0
    kept: int = 0
    tally: Tally = field(default_factory=Tally)
    failures: list[tuple[str, str]] = field(default_factory=list)
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0 done, 1 some shards could not be indexed, 3 interrupted."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        return EXIT_FINDINGS if self.failures else EXIT_DONE


@dataclass(frozen=True, slots=True)
class IndexTask:
    """One shard to index."""

    path: str
    energon: bool
    lease_path: str
    run: str


def index(options: Index) -> IndexResult:
    """Write sidecars, samples tables, manifest and sizes.json beside shards.

    Args:
        options: see `Index`.

    Raises:
        UserError: a path does not exist, tars of a folder were left out, or they are ours.
    """
    by_folder: dict[str, list[str]] = defaultdict(list)
    for path in find_shards(options.shards):
        by_folder[os.path.dirname(absolute(path))].append(absolute(path))
    for folder, paths in by_folder.items():
        _check_whole(folder, paths)
    result = IndexResult()
    with terminate_as_interrupt():
        for folder, paths in by_folder.items():
            ours = _is_ours(folder, paths)
            if ours and not options.energon:
                raise UserError(
                    f"{folder}: holds shards of ours, which have their sidecars; --energon adds "
                    "Energon's index, mmdata repair restores what is lost"
                )
            with Lease(folder) as lease:
                sweep(folder)
                if ours:
                    _index_ours(folder, paths, result)
                else:
                    _index_others(options, folder, sorted(paths, key=natural_key), lease, result)
            if result.interrupted:
                break
    return result


def _check_whole(folder: str, paths: list[str]) -> None:
    there = {name for name in list_names(folder) if name.endswith(TAR) and name[0] != "."}
    left_out = sorted(there - {os.path.basename(path) for path in paths})
    if left_out:
        raise UserError(
            f"{folder}: {len(left_out)} of its tars are not named ({left_out[0]}): a manifest is "
            "of a whole folder; name the folder"
        )


def _sidecar(path: str) -> Sidecar | None:
    try:
        return msgspec.json.decode(read_bytes(path.removesuffix(TAR) + SIDECAR), type=Sidecar)
    except (FileNotFoundError, msgspec.DecodeError):
        return None  # none, or somebody else's file of that name


def _is_ours(folder: str, paths: list[str]) -> bool:
    if exists(os.path.join(folder, PLAN_NAME)):
        return True
    sidecars = filter(None, map(_sidecar, paths))
    return any(not sidecar.indexed for sidecar in sidecars)


def _index_ours(folder: str, paths: list[str], result: IndexResult) -> None:
    """Energon's index alone, beside what a conversion wrote."""
    counts = {os.path.basename(path): write_tar_index(path) for path in paths}
    write_meta(folder, counts)
    result.folders[folder] = sum(counts.values())
    result.shards += len(paths)


def _fingerprint(layout: Layout) -> str:
    options = {"indexed": True, "layout": layout}
    return fingerprint_of(_KINDS[layout], [], options, codec_versions())


def _index_others(
    options: Index, folder: str, paths: list[str], lease: Lease, result: IndexResult
) -> None:
    """Index the shards of one folder that are not indexed yet, then write what is beside all."""
    wanted = [
        path for path in paths if options.overwrite or not _stands(path, energon=options.energon)
    ]
    outdated = META_FILES if wanted else ()
    remove(os.path.join(folder, name) for name in (MANIFEST_NAME, SIZES_NAME, *outdated))
    tasks = [IndexTask(path, options.energon, lease.path, lease.holder.run) for path in wanted]
    result.kept += len(paths) - len(wanted)
    seconds = sum(size_of(path) for path in wanted) / _BYTES_PER_SECOND
    try:
        ended = compute_each(index_shard, tasks, options, seconds=seconds)
    except KeyboardInterrupt:
        result.interrupted = True
        return
    failures = [
        (path, told.error)
        for path, told in zip(wanted, ended, strict=True)
        if isinstance(told, UnitFailure)
    ]
    result.failures += failures
    result.shards += len(paths) - len(failures)
    if not failures:
        if not holds(lease.path, lease.holder.run):
            raise LeaseLostError(f"{folder}: another run has taken over; nothing is lost")
        _write_manifest(folder, paths, result, energon=options.energon)


def _stands(path: str, *, energon: bool) -> bool:
    """Whether a shard is indexed, by its size."""
    sidecar = _sidecar(path)
    if sidecar is None or not sidecar.indexed or sidecar.bytes != size_of(path):
        return False
    stem = path.removesuffix(TAR)
    if sidecar.fingerprint != _fingerprint(sidecar.layout):
        return False
    endings = [SAMPLES, REJECTS, *([TAR_INDEX] if energon else [])]
    return all(exists(stem + ending) for ending in endings)


def index_shard(task: IndexTask) -> Sidecar:
    """Write what stands beside a shard, the sidecar last.

    Raises:
        BadInputError: the tar is damaged, or a sample of it has nothing to index.
        LeaseLostError: another run has taken over.
    """
    path, name = task.path, os.path.basename(task.path)
    stem = path.removesuffix(TAR)
    with local_file(path) as file:
        # By plain reads first: a disk that fails must not end the process through a map.
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        with mapped(file) as data:
            contents = contents_of(path, data)
            layout = layout_of(contents)
            rows, tally = describe(path, data, contents, name)
            num_bytes = len(data)
    table = samples_table(rows)
    if not holds(task.lease_path, task.run):
        raise LeaseLostError(f"{path}: another run has taken over; nothing is lost")
    remove([stem + SIDECAR, stem + TAR_INDEX])
    write_atomically(stem + SAMPLES, table)
    write_atomically(stem + REJECTS, b"")
    if task.energon:
        write_tar_index(path)
    sidecar = Sidecar(
        format_version=FORMAT_VERSION,
        kind=_KINDS[layout],
        layout=layout,
        shard=name,
        bytes=num_bytes,
        sha256=sha256,
        samples_bytes=len(table),
        samples_sha256=hashlib.sha256(table).hexdigest(),
        rejects_bytes=0,
        rejects_sha256=hashlib.sha256().hexdigest(),
        first_ordinal=0,
        source=[SourceSpan(file=name, first_record=0, num_records=tally.records)],
        tally=tally,
        fingerprint=_fingerprint(layout),
        indexed=True,
    )
    write_atomically(stem + SIDECAR, encode_record(sidecar))
    return sidecar


def _write_manifest(folder: str, paths: list[str], result: IndexResult, *, energon: bool) -> None:
    """`.nv-meta`, `sizes.json` and, last, `manifest.json`.

    Raises:
        UserError: the folder holds both layouts.
    """
    totals, rows, layouts = Tally(), [], Counter[Layout]()
    for path in paths:
        raw = read_bytes(path.removesuffix(TAR) + SIDECAR)
        sidecar = msgspec.json.decode(raw, type=Sidecar)
        totals.add(sidecar.tally)
        layouts[sidecar.layout] += sidecar.tally.documents or 1
        name = os.path.basename(path)
        rows.append(
            ManifestShard(
                shard=name,
                samples=sidecar.tally.documents,
                bytes=sidecar.bytes,
                sha256=sidecar.sha256,
                sidecar=name.removesuffix(TAR) + SIDECAR,
                sidecar_sha256=hashlib.sha256(raw).hexdigest(),
            )
        )
    if len(layouts) > 1:
        raise UserError(f"{folder}: holds documents and pairs of picture and text; part them")
    (layout,) = layouts
    sizes = {row.shard: row.samples for row in rows}
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        kind=_KINDS[layout],
        layout=layout,
        totals=totals,
        options={"indexed": True, "layout": layout},
        versions=codec_versions(),
        fingerprint=_fingerprint(layout),
        inputs=[],
        excluded_inputs=[],
        shards=rows,
    )
    if energon:
        write_meta(folder, sizes)
    write_atomically(os.path.join(folder, SIZES_NAME), msgspec.json.encode(sizes) + b"\n")
    write_atomically(os.path.join(folder, MANIFEST_NAME), encode_record(manifest))
    result.tally.add(totals)
    result.folders[folder] = totals.documents
