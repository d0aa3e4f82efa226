"""The rules of what stands beside a shard: sidecar, samples table, rejects.

A sidecar names its shard, its size and its sha256, the samples table names every member, and the
tally accounts for every record. Each of them is checked against the tar and against the others, so
that files of different runs that were mixed in one folder do not pass.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os.path import basename
from typing import Any

import msgspec

from mmdata.shards.naming import REJECTS, SAMPLES, SIDECAR, TAR
from mmdata.storage.files import exists, read_bytes
from mmdata.storage.ranges import Slices
from mmdata.validation.documents import Problem, schema_problem
from mmdata.validation.findings import Findings
from mmdata.validation.tar_rules import IMAGE_EXTENSIONS, TarContents
from mmdata.wording import plural
from schemas.document import FORMAT_VERSION
from schemas.manifest import SAMPLES_COLUMNS, Reject, Sidecar, Tally

_SIDECAR_DECODER = msgspec.json.Decoder(Sidecar)
_REJECT_DECODER = msgspec.json.Decoder(Reject)

#: Columns that the tar's headers are checked against.
STRUCTURE_COLUMNS = ("key", "offset", "size")
#: What the tally is checked against; as lists of lists they would cost more than all the rest.
_TALLIED = ("sentences", "matched", "image_bytes", "reencoded")

#: The samples table as Python lists, by column.
Table = dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Samples:
    """A samples table.

    Attributes:
        columns: those that were asked for, as lists.
        totals: what the tally should say of all rows, by its fields.
    """

    columns: Table
    totals: dict[str, int]


@dataclass(frozen=True, slots=True)
class Beside:
    """Paths of the files beside a shard."""

    sidecar: str
    samples: str
    rejects: str

    @classmethod
    def of(cls, shard: str) -> "Beside":
        """The paths for one shard, whether the files exist or not."""
        stem = shard.removesuffix(TAR)
        return cls(*(stem + ending for ending in (SIDECAR, SAMPLES, REJECTS)))


def read_sidecar(beside: Beside, findings: Findings, *, owed: bool) -> Sidecar | None:
    """SIDE001, SIDE002, SIDE014: the sidecar, or None where there is none that can be used.

    Args:
        beside: where it should be.
        findings: take what is wrong.
        owed: the shard is known to be ours; otherwise a file of that name may be somebody's.
    """
    owed = owed or exists(beside.samples) or exists(beside.rejects)
    try:
        raw = read_bytes(beside.sidecar)
    except FileNotFoundError:
        if owed:
            findings.add("SIDE001", basename(beside.sidecar), "no such file")
        return None
    except OSError as error:
        findings.add("SIDE002", "a readable file", str(error))
        return None
    if not owed and b'"format_version"' not in raw and b'"fingerprint"' not in raw:
        return None
    try:
        sidecar = _SIDECAR_DECODER.decode(raw)
    except msgspec.ValidationError as error:
        path, expected, got = schema_problem(error)
        findings.add("SIDE002", expected, got, path=path)
        return None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        findings.add("SIDE002", "JSON", str(error))
        return None
    if sidecar.format_version != FORMAT_VERSION:
        got = repr(sidecar.format_version)
        findings.add("SIDE014", repr(FORMAT_VERSION), got, path="$.format_version")
    return sidecar


def names_this_shard(sidecar: Sidecar, shard: str, findings: Findings) -> None:
    """SIDE003, by name; by its numbers it is found where all shards are known."""
    name = basename(shard)
    if sidecar.shard != name:
        findings.add("SIDE003", repr(name), repr(sidecar.shard), path="$.shard")


def size_fits(sidecar: Sidecar, data: Slices, findings: Findings) -> None:
    """SIDE004."""
    if len(data) != sidecar.bytes:
        findings.add("SIDE004", f"{sidecar.bytes} bytes", f"{len(data)}", path="$.bytes")


def hash_fits(sidecar: Sidecar, digest: str, findings: Findings) -> None:
    """SIDE005."""
    if digest != sidecar.sha256:
        findings.add("SIDE005", sidecar.sha256, digest, path="$.sha256")


def read_samples(
    sidecar: Sidecar, beside: Beside, columns: Iterable[str], findings: Findings
) -> Samples | None:
    """SIDE006, SIDE007: columns of the samples table, or None where it cannot be used."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = tuple(columns)
    try:
        raw = read_bytes(beside.samples)
        # In this thread: one of Arrow's that lets go of Python's bytes while Python ends aborts it.
        file = pq.ParquetFile(pa.BufferReader(raw), pre_buffer=False)
        missing = [name for name in SAMPLES_COLUMNS if name not in file.schema_arrow.names]
        wanted = [*dict.fromkeys((*columns, *_TALLIED))]
        table = None if missing else file.read(columns=wanted, use_threads=False)
        read = {} if table is None else {name: table[name].to_pylist() for name in columns}
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        findings.add("SIDE006", f"{basename(beside.samples)}, a parquet file", str(error))
        return None
    _same_file("SIDE007", raw, sidecar.samples_bytes, sidecar.samples_sha256, findings)
    if table is None:
        findings.add("SIDE006", f"columns {', '.join(SAMPLES_COLUMNS)}", f"no {missing[0]}")
        return None
    return Samples(read, _totals(table))


def _totals(table: Any) -> dict[str, int]:
    """What the tally should say, from an Arrow table whose cells become no Python values."""
    import pyarrow.compute as pc

    def total(column: Any) -> int:
        return int(pc.sum(column).as_py() or 0)

    return {
        "images": total(pc.list_value_length(table.column("matched"))),
        "sentences": total(table.column("sentences")),
        "image_bytes": total(pc.list_flatten(table.column("image_bytes"))),
        "images_reencoded": total(pc.list_flatten(table.column("reencoded"))),
    }


def rows_fit_members(
    sidecar: Sidecar, table: Table, contents: TarContents, findings: Findings
) -> None:
    """SIDE008: key, offset and size of every sample, as the tar's own headers say them."""
    keys = contents.keys
    if len(table["key"]) != len(keys):
        findings.add("SIDE008", f"{plural(len(keys), 'row')}, one a sample", f"{len(table['key'])}")
    pictures = sidecar.layout == "pairs"  # whose rows are about the picture
    others = IMAGE_EXTENSIONS if pictures else {"json"}
    some = pictures or sidecar.indexed
    if not some and _same_places(table, contents):
        return
    here = [
        (key, member.offset, member.size)
        for (key, extension), member in zip(contents.names, contents.members, strict=True)
        if not some or extension in others
    ]
    there = list(zip(table["key"], table["offset"], table["size"], strict=True))
    if here == there:
        return
    for row, (member, listed) in enumerate(zip(here, there, strict=False)):
        for name, expected, got in zip(("key", "offset", "size"), member, listed, strict=True):
            if expected != got:
                path = f"samples[{row}].{name}"
                findings.add("SIDE008", repr(expected), repr(got), key=member[0], path=path)


def _same_places(table: Table, contents: TarContents) -> bool:
    """Whether all rows fit; by columns, which makes no tuple a member."""
    return (
        table["key"] == contents.keys
        and table["offset"] == [member.offset for member in contents.members]
        and table["size"] == [member.size for member in contents.members]
    )


def check_rejects(sidecar: Sidecar, beside: Beside, findings: Findings) -> None:
    """SIDE010, SIDE011: the rejects are the sidecar's, and account for its drops."""
    try:
        raw = read_bytes(beside.rejects)
    except OSError as error:
        findings.add("SIDE010", basename(beside.rejects), error.strerror or str(error))
        return
    if not _same_file("SIDE010", raw, sidecar.rejects_bytes, sidecar.rejects_sha256, findings):
        return
    counts: Counter[tuple[str, str]] = Counter()
    for number, line in enumerate(raw.splitlines()):
        try:
            reject = _REJECT_DECODER.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            findings.add("SIDE010", "a reject", str(error), path=f"rejects[{number}]")
            return
        counts[reject.action, reject.reason] += 1
    for action, field in (
        ("dropped-document", "documents_dropped"),
        ("dropped-image", "images_dropped"),
    ):
        tallied: dict[str, int] = getattr(sidecar.tally, field)
        listed = {reason: count for (kind, reason), count in counts.items() if kind == action}
        for reason in sorted(tallied.keys() | listed.keys()):
            if tallied.get(reason, 0) != listed.get(reason, 0):
                path = f"$.tally.{field}.{reason}"
                expected = f"{listed.get(reason, 0)}, the lines in {basename(beside.rejects)}"
                findings.add("SIDE011", expected, f"{tallied.get(reason, 0)}", path=path)


def check_tally(
    sidecar: Sidecar, samples: Samples | None, contents: TarContents, findings: Findings
) -> None:
    """SIDE012: the tally adds up, and is what the shard and its table hold."""
    tally = sidecar.tally
    problems = list(tally_adds_up(tally))
    problems += _differences(tally, {"documents": len(contents.keys)})
    spans = sum(span.num_records for span in sidecar.source)
    if spans != tally.records + tally.other_splits:
        expected = f"spans of {tally.records + tally.other_splits} records"
        problems.append(("$.source", expected, f"{spans}"))
    if samples is not None and len(samples.columns["key"]) == tally.documents:
        problems += _differences(tally, samples.totals)
    for path, expected, got in problems:
        findings.add("SIDE012", expected, got, path=path)


def tally_adds_up(tally: Tally) -> Iterator[Problem]:
    """records = documents + dropped, and the same of images."""
    dropped = sum(tally.documents_dropped.values())
    if tally.records != tally.documents + dropped:
        expected = f"{tally.documents + dropped}, documents and drops together"
        yield "$.tally.records", expected, f"{tally.records}"
    dropped = sum(tally.images_dropped.values())
    if tally.images_listed != tally.images + dropped:
        expected = f"{tally.images + dropped}, images and drops together"
        yield "$.tally.images_listed", expected, f"{tally.images_listed}"


def _differences(tally: Tally, held: dict[str, int]) -> list[Problem]:
    return [
        (f"$.tally.{name}", f"{count}, as in the shard", f"{getattr(tally, name)}")
        for name, count in held.items()
        if getattr(tally, name) != count
    ]


def _same_file(code: str, raw: bytes, size: int, sha256: str, findings: Findings) -> bool:
    """Whether a small file has the size and sha256 that the sidecar gives it."""
    if len(raw) != size:
        findings.add(code, f"{size} bytes", f"{len(raw)}")
        return False
    digest = hashlib.sha256(raw).hexdigest()
    if digest != sha256:
        findings.add(code, f"sha256 {sha256}", digest)
    return digest == sha256
