"""The rules of a folder: manifest, sizes.json, and what must hold across its shards.

A manifest is written last, so its presence says that the conversion is complete; every shard that
it lists is here, with the sidecar that it names, and no key is in two of them. Rules about what is
missing or added apply when all tars of the folder were given, not when one was picked out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import basename, join

import msgspec
from msgspec import UNSET, UnsetType

from mmdata.errors import BadInputError
from mmdata.shards.groups import count_groups, read_label
from mmdata.shards.naming import MANIFEST_NAME, PLAN_NAME, SAMPLES, SIDECAR, SIZES_NAME, TAR
from mmdata.shards.reader import split_name
from mmdata.shards.structure import walk
from mmdata.storage.files import exists, list_names, open_buffer, read_bytes
from mmdata.validation.documents import Problem, schema_problem
from mmdata.validation.findings import Findings
from mmdata.validation.shard import ShardResult
from schemas.document import FORMAT_VERSION
from schemas.manifest import Groups, Manifest, ManifestShard, Sidecar, Tally, manifest_fingerprint

_MANIFEST_DECODER = msgspec.json.Decoder(Manifest)
_SIZES_DECODER = msgspec.json.Decoder(dict[str, int])


@dataclass(frozen=True, slots=True)
class DatasetFolder:
    """A folder that holds shards.

    Attributes:
        path: of the folder.
        manifest: None where there is none, or none that can be read.
        started: a conversion of ours has been at work here.
        whole: every tar in it is to be checked.
    """

    path: str
    manifest: Manifest | None
    started: bool
    whole: bool

    @property
    def ours(self) -> bool:
        """Whether its shards owe a sidecar."""
        return self.manifest is not None or self.started


def read_folder(path: str, shards: set[str], findings: Findings) -> DatasetFolder:
    """MAN001, SIDE014: look at what stands beside the shards of one folder.

    Args:
        path: of the folder.
        shards: names of its tars that are to be checked.
        findings: take what is wrong with the manifest.
    """
    there = {name for name in list_names(path) if name.endswith(".tar")}
    whole = {name for name in there if not name.startswith(".")} <= shards
    manifest, claimed = None, False
    try:
        raw = read_bytes(join(path, MANIFEST_NAME))
        claimed = b'"fingerprint"' in raw or b'"format_version"' in raw
        manifest = _MANIFEST_DECODER.decode(raw) if claimed else None
        known_fields(raw, manifest, findings)
    except FileNotFoundError:
        pass
    except msgspec.ValidationError as error:
        at, expected, got = schema_problem(error)
        findings.add("MAN001", expected, got, path=at)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        findings.add("MAN001", "a manifest", str(error))
    if manifest is not None and manifest.format_version != FORMAT_VERSION:
        got = repr(manifest.format_version)
        findings.add("SIDE014", repr(FORMAT_VERSION), got, path="$.format_version")
    started = claimed or exists(join(path, PLAN_NAME))
    return DatasetFolder(path, manifest, started, whole)


def known_fields(raw: bytes, manifest: Manifest | None, findings: Findings) -> None:
    """MAN011: a field whose name one bit misspells would else pass for one left at its default."""
    if manifest is not None:
        for path in _unknown(msgspec.json.decode(raw), msgspec.to_builtins(manifest), "$"):
            findings.add("MAN011", "a field of docs/format.md", path.rpartition(".")[2], path=path)


def _unknown(there: object, known: object, path: str) -> Iterator[str]:
    """Paths of what is in a JSON value and not in its typed reading."""
    if isinstance(there, dict) and isinstance(known, dict):
        for name, value in there.items():
            if name in known:
                yield from _unknown(value, known[name], f"{path}.{name}")
            else:
                yield f"{path}.{name}"
    elif isinstance(there, list) and isinstance(known, list):
        for number, (one, other) in enumerate(zip(there, known, strict=True)):
            yield from _unknown(one, other, f"{path}[{number}]")


def check_folder(folder: DatasetFolder, results: Sequence[ShardResult], findings: Findings) -> None:
    """Every rule across the shards of one folder.

    Args:
        folder: as `read_folder` found it.
        results: of its shards that were checked, in order.
        findings: take what is found, under the name of the manifest.
    """
    ours = folder.ours or any(result.sidecar is not None for result in results)
    if not ours:
        return
    foreign_sidecars(results, findings)
    unique_keys(results, findings)
    if folder.manifest is None:
        if not findings.counts.get("MAN001"):
            findings.add("MAN007", "manifest.json, which is written last", "no such file")
        return
    listed = {row.shard: row for row in folder.manifest.shards}
    for result in results:
        name = basename(result.path)
        if name not in listed:
            findings.add("MAN003", "a shard of the manifest", f"{name}, which it does not list")
            continue
        for code, problem in row_fits_shard(folder.manifest, listed[name], result):
            path, expected, got = problem
            findings.add(code, expected, got, path=f"$.shards[{name}].{path}")
    sizes_agree(folder.path, folder.manifest, findings)
    fingerprint_fits(folder.manifest, findings)
    if folder.whole:
        missing_shards(folder.path, folder.manifest, findings)
        totals_add_up(folder.manifest, results, findings)
        groups_fit(folder.path, folder.manifest, findings)


def missing_shards(folder: str, manifest: Manifest, findings: Findings) -> None:
    """MAN002."""
    there = set(list_names(folder))
    for row in manifest.shards:
        if row.shard not in there:
            findings.add("MAN002", row.shard, "no such file", path=f"$.shards[{row.shard}]")


def row_fits_shard(
    manifest: Manifest, row: ManifestShard, result: ShardResult
) -> Iterator[tuple[str, Problem]]:
    """MAN004, MAN005, MAN008: one row against the shard and the sidecar that are there."""
    found: dict[str, object] = {"bytes": result.num_bytes, "samples": result.num_samples}
    found["sidecar"] = row.shard.removesuffix(TAR) + SIDECAR
    if result.sha256 is not None:
        found["sha256"] = result.sha256
    for name, value in found.items():
        recorded = getattr(row, name)
        if recorded == value:
            continue
        if name in ("bytes", "samples", "sha256") and not _sidecar_says(result, name, value):
            yield "MAN004", (name, f"{recorded!r}, as in the manifest", f"{value!r} in the shard")
        else:
            yield "MAN004", (name, f"{value!r}, as in the shard", repr(recorded))
    if result.sidecar is None or result.sidecar_sha256 is None:
        return
    if row.sidecar_sha256 != result.sidecar_sha256:
        yield "MAN005", ("sidecar_sha256", row.sidecar_sha256, result.sidecar_sha256)
    for name in ("fingerprint", "kind", "layout", "format_version"):
        expected, got = getattr(manifest, name), getattr(result.sidecar, name)
        if expected != got:
            yield "MAN008", (name, f"{expected!r}, as in the manifest", f"{got!r} in the sidecar")


def _sidecar_says(result: ShardResult, name: str, value: object) -> bool:
    """Whether the sidecar bears out what the shard is: then it is the manifest that is wrong."""
    sidecar = result.sidecar
    if sidecar is None:
        return False
    said = {
        "bytes": sidecar.bytes,
        "sha256": sidecar.sha256,
        "samples": sidecar.tally.documents,
    }
    return said[name] == value


def fingerprint_fits(manifest: Manifest, findings: Findings) -> None:
    """MAN010: the fingerprint, which every sidecar repeats, vouches for what it was made of."""
    inputs = [(entry.file, entry.bytes, entry.records, entry.crc32) for entry in manifest.inputs]
    expected = manifest_fingerprint(manifest.kind, inputs, manifest.options, manifest.versions)
    if expected != manifest.fingerprint:
        findings.add("MAN010", expected, manifest.fingerprint, path="$.fingerprint")


def totals_add_up(manifest: Manifest, results: Sequence[ShardResult], findings: Findings) -> None:
    """MAN006, where every listed shard has a sidecar that can be read."""
    names = {row.shard for row in manifest.shards}
    total, num_sidecars = Tally(), 0
    for result in results:
        if result.sidecar is not None and basename(result.path) in names:
            total.add(result.sidecar.tally)
            num_sidecars += 1
    if num_sidecars != len(names):
        return
    expected = msgspec.to_builtins(total)
    got = msgspec.to_builtins(manifest.totals)
    for name, value in expected.items():
        if value != got[name]:
            path = f"$.totals.{name}"
            findings.add("MAN006", f"{value}, the sum of the sidecars", f"{got[name]}", path=path)


def groups_fit(folder: str, manifest: Manifest, findings: Findings) -> None:
    """MAN012, where the samples tables of all listed shards can be read."""
    stems = [row.shard.removesuffix(TAR) for row in manifest.shards]
    tables = [join(folder, stem + SAMPLES) for stem in stems]
    try:
        labels = [read_label(table) for table in tables]
        label = labels[0] if labels and labels.count(labels[0]) == len(labels) else None
        expected: Groups | UnsetType = UNSET
        if label is not None:
            groups, without = count_groups(tables, manifest.totals.documents)
            expected = Groups(by=label.by, key=label.key, groups=groups, documents_without=without)
    except (BadInputError, OSError):
        return  # SIDE006 tells
    if expected != manifest.groups:
        told = [_group_words(groups) for groups in (expected, manifest.groups)]
        findings.add("MAN012", told[0], told[1], path="$.groups")


def _group_words(groups: Groups | UnsetType) -> str:
    return "none" if groups is UNSET else msgspec.json.encode(groups).decode()


def sizes_agree(folder: str, manifest: Manifest, findings: Findings) -> None:
    """MAN009: what open_clip and OpenFlamingo take the number of samples from."""
    expected = {row.shard: row.samples for row in manifest.shards}
    try:
        got = _SIZES_DECODER.decode(read_bytes(join(folder, SIZES_NAME)))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        findings.add("MAN009", "sizes.json, {file: count}", str(error))
        return
    for name in sorted(expected.keys() | got.keys()):
        if expected.get(name) != got.get(name):
            path = f"sizes.json $.{name}"
            findings.add("MAN009", f"{expected.get(name)}", f"{got.get(name)}", path=path)


def foreign_sidecars(results: Sequence[ShardResult], findings: Findings) -> None:
    """SIDE003, by numbers: a sidecar that does not fit its shard but fits another one."""
    by_content = {(result.num_bytes, result.sha256): result.path for result in results}
    for result in results:
        sidecar = result.sidecar
        if sidecar is None or _fits(sidecar, result):
            continue
        digest = sidecar.sha256 if result.sha256 is not None else None
        owner = by_content.get((sidecar.bytes, digest))
        if owner is not None and owner != result.path:
            name = basename(result.path)
            got = f"size and sha256 of {basename(owner)}"
            findings.add("SIDE003", f"size and sha256 of {name}", got, key=name, path="$.sha256")


def _fits(sidecar: Sidecar, result: ShardResult) -> bool:
    same_bytes = result.sha256 is None or sidecar.sha256 == result.sha256
    return same_bytes and sidecar.bytes == result.num_bytes


def unique_keys(results: Sequence[ShardResult], findings: Findings) -> None:
    """KEY003. Ranges of keys that do not overlap need no look at the keys themselves."""
    spans = sorted((r.first_key, r.last_key, r.path) for r in results if r.first_key)
    group: list[str] = []
    greatest = ""
    for first, last, path in spans:
        if group and first <= greatest:
            group.append(path)
        else:
            _compare_keys(group, findings)
            group = [path]
        greatest = max(greatest, last)
    _compare_keys(group, findings)


def _compare_keys(paths: list[str], findings: Findings) -> None:
    """Read the keys of shards whose ranges overlap, and report those that two of them have."""
    if len(paths) < 2:
        return
    owner: dict[str, str] = {}
    for path in paths:
        with open_buffer(path) as data:
            keys = {split_name(member.name)[0] for member in walk(data, lambda fault: None)}
        for key in sorted(keys - {""}):
            first = owner.setdefault(key, path)
            if first != path:
                got = f"in {basename(first)} and in {basename(path)}"
                findings.add("KEY003", "a key in one shard only", got, key=key)
