"""The output folder: what is committed there, what is left over, and the manifest that ends a run.

A shard is committed when its sidecar is there, has this conversion's fingerprint, and names the
sizes of the files beside it.
"""

import hashlib
import os

import msgspec
from msgspec import UNSET, UnsetType

from mmdata.errors import UserError
from mmdata.shards.energon import META_FILES, META_FOLDER, write_meta, write_tar_index
from mmdata.shards.groups import count_groups, read_label
from mmdata.shards.naming import (
    MANIFEST_NAME,
    PLAN_NAME,
    REJECTS,
    SAMPLES,
    SIDECAR,
    SIZES_NAME,
    TAR,
    TAR_INDEX,
    shard_of,
    shard_stem,
)
from mmdata.shards.writer import encode_record
from mmdata.storage.atomic import is_temporary, remove, sha256_of, write_atomically
from mmdata.storage.files import is_folder, list_folder, list_names
from mmdata.storage.uploads import abort_uploads, unfinished_uploads
from mmdata.storage.urls import is_url
from pipelines.conversion.output_files import LiveFiles, OutputFiles
from pipelines.conversion.plan import ConversionPlan, load_plan
from schemas.document import FORMAT_VERSION
from schemas.manifest import Groups, Manifest, ManifestInput, ManifestShard, Sidecar, Tally
from schemas.reasons import ImageDrop


def read_sidecar(files: OutputFiles, shard: int) -> Sidecar | None:
    """The sidecar of a shard; None when there is none that can be read."""
    raw = files.read(shard_stem(shard) + SIDECAR)
    try:
        return None if raw is None else msgspec.json.decode(raw, type=Sidecar)
    except msgspec.DecodeError:
        return None


def committed(
    output: str,
    shard: int,
    fingerprint: str,
    *,
    verify: bool = False,
    files: OutputFiles | None = None,
) -> Sidecar | None:
    """The sidecar of a shard that exists: of this conversion, and its files of the sizes it names.

    Args:
        output: the folder.
        shard: its number.
        fingerprint: of this conversion.
        verify: hash the files too.
        files: of the folder, for a caller that asks about many shards.
    """
    files = files or LiveFiles(output)
    sidecar = read_sidecar(files, shard)
    if sidecar is None or sidecar.fingerprint != fingerprint:
        return None
    stem = shard_stem(shard)
    for ending, size, sha256 in (
        (TAR, sidecar.bytes, sidecar.sha256),
        (SAMPLES, sidecar.samples_bytes, sidecar.samples_sha256),
        (REJECTS, sidecar.rejects_bytes, sidecar.rejects_sha256),
    ):
        if files.size(stem + ending) != size:
            return None
        if verify and sha256_of(os.path.join(output, stem + ending)) != sha256:
            return None
    return sidecar


def lacks_images(sidecar: Sidecar) -> bool:
    """Whether images were missing when the shard was written, or could have been several."""
    dropped = sidecar.tally.images_dropped
    return bool(dropped.get(ImageDrop.MISSING, 0) or dropped.get(ImageDrop.AMBIGUOUS_NAME, 0))


def leftovers(output: str) -> list[str]:
    """What killed runs left, or the one that is going on has not committed yet.

    Files under temporary names; in a store, the objects whose upload was not completed.
    """
    if is_url(output):
        return sorted(key for key, _ in unfinished_uploads(output))
    return sorted(name for name in list_names(output) if is_temporary(name))


def sweep(output: str) -> int:
    """Remove what killed runs left; returns how many files or uploads that were."""
    if is_url(output):
        return abort_uploads(output)
    left = leftovers(output)
    meta = os.path.join(output, META_FOLDER)
    if os.path.isdir(meta):
        left += [os.path.join(META_FOLDER, name) for name in leftovers(meta)]
    remove(os.path.join(output, name) for name in left)
    return len(left)


def check_is_ours(output: str, before: ConversionPlan | None) -> None:
    """Refuse a folder with shards that no conversion of ours planned.

    Args:
        output: the folder.
        before: the plan that it holds; None for none.

    Raises:
        UserError: it has such shards; says what to do.
    """
    if before is not None or not is_folder(output):
        return
    tars = sorted(name for name in list_names(output) if name.endswith(".tar"))
    if not tars:
        return
    which = tars[0] if len(tars) == 1 else f"{tars[0]} and {len(tars) - 1} more"
    foreign = [name for name in tars if shard_of(name) is None]
    way_out = "move them away" if foreign else "--overwrite to replace them"
    raise UserError(
        f"{output}: holds shards without a {PLAN_NAME} ({which}), made by something else; choose "
        f"another folder, or {way_out}"
    )


def earlier_plan(output: str, *, overwrite: bool) -> ConversionPlan | None:
    """The plan of an earlier run into a folder, which must hold nothing of anybody else."""
    if overwrite:
        return None
    before = load_plan(output)
    check_is_ours(output, before)
    return before


def check_unchanged(plan: ConversionPlan, output: str) -> None:
    """Look again under the lease: another run may have come between the plan and now."""
    before = load_plan(output)
    check_is_ours(output, before)
    if before is not None and before.fingerprint != plan.fingerprint:
        raise UserError(f"{output}: another conversion was written there just now")


def clear(output: str) -> None:
    """Remove an earlier conversion: manifest and sidecars first, then what they vouch for."""
    names = [name for name in list_names(output) if shard_of(name)]
    first = [name for name in names if name.endswith(SIDECAR)]
    rest = [name for name in names if not name.endswith(SIDECAR)]
    for group in ([MANIFEST_NAME, SIZES_NAME, *META_FILES], first, rest, [PLAN_NAME]):
        remove(os.path.join(output, name) for name in group)


def forget_manifest(output: str) -> None:
    """Take back the word that the dataset is complete, before a shard is written anew."""
    remove(os.path.join(output, name) for name in (MANIFEST_NAME, SIZES_NAME, *META_FILES))


def forget_shard(output: str, shard: int) -> None:
    """Take back the word that a shard exists."""
    remove([os.path.join(output, shard_stem(shard) + SIDECAR)])


def clearable_bytes(output: str) -> int:
    """What `clear` would free."""
    return sum(facts.size for name, facts in list_folder(output).items() if shard_of(name))


def _write_energon(output: str, sizes: dict[str, int], files: OutputFiles) -> None:
    """Write Energon's `.nv-meta`, and the index of each shard that was written without."""
    for shard in sizes:
        if files.size(shard.removesuffix(TAR) + TAR_INDEX) is None:
            write_tar_index(os.path.join(output, shard))
    write_meta(output, sizes)


def _groups(output: str, rows: list[ManifestShard], documents: int) -> Groups | UnsetType:
    """The groups that the samples tables tell; unset where not all of them do, by one field."""
    tables = [os.path.join(output, row.shard.removesuffix(TAR) + SAMPLES) for row in rows]
    label = read_label(tables[0]) if tables else None
    if label is None or any(read_label(table) != label for table in tables[1:]):
        return UNSET
    groups, without = count_groups(tables, documents)
    return Groups(by=label.by, key=label.key, groups=groups, documents_without=without)


def write_manifest(
    output: str, plan: ConversionPlan, files: OutputFiles, *, energon: bool = False
) -> Manifest:
    """Write `sizes.json`, then `manifest.json`: from here on the dataset is complete."""
    totals = Tally()
    rows: list[ManifestShard] = []
    for index in range(plan.num_shards):
        stem = shard_stem(index)
        sidecar, raw = read_sidecar(files, index), files.read(stem + SIDECAR)
        if sidecar is None or raw is None:
            path = os.path.join(output, stem + SIDECAR)
            raise UserError(f"{path}: gone while the run was going; run the same command again")
        totals.add(sidecar.tally)
        rows.append(
            ManifestShard(
                shard=sidecar.shard,
                samples=sidecar.tally.documents,
                bytes=sidecar.bytes,
                sha256=sidecar.sha256,
                sidecar=stem + SIDECAR,
                sidecar_sha256=hashlib.sha256(raw).hexdigest(),
            )
        )
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        kind=plan.kind,
        layout=plan.options.get("layout", "interleaved"),
        totals=totals,
        options=plan.options,
        versions=plan.versions,
        fingerprint=plan.fingerprint,
        inputs=[
            ManifestInput(
                file=entry.name, bytes=entry.bytes, records=entry.records, crc32=entry.crc32
            )
            for entry in plan.inputs
        ],
        excluded_inputs=plan.excluded,
        shards=rows,
        groups=_groups(output, rows, totals.documents),
    )
    sizes = {row.shard: row.samples for row in rows}
    if energon:
        _write_energon(output, sizes, files)
    write_atomically(os.path.join(output, SIZES_NAME), msgspec.json.encode(sizes) + b"\n")
    write_atomically(os.path.join(output, MANIFEST_NAME), encode_record(manifest))
    return manifest
