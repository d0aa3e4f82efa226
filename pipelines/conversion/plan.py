"""The plan of a conversion: inputs, their records, units of work, shards, what it will take.

A unit is a segment of an input; it writes one or more consecutive shards, and no shard straddles
two units, so that names and contents of shards follow from the inputs and options alone. The plan
is kept in the output folder (`plan.json`): a resume does not count again, and another conversion
into the same folder is refused with the differences.
"""

import math
import os
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from mmdata.errors import UserError
from mmdata.shards.naming import PLAN_NAME
from mmdata.shards.writer import encode_record
from mmdata.sources.records import Segment
from mmdata.storage.atomic import write_atomically
from mmdata.storage.files import read_bytes
from mmdata.storage.urls import absolute
from schemas.document import FORMAT_VERSION
from schemas.manifest import ExcludedInput, Kind, manifest_fingerprint


class ShardScan(Struct, kw_only=True, omit_defaults=True):
    """What a shard that is an input says of its samples.

    Attributes:
        layout: of the samples; empty where there are none.
        first_key, last_key: of the samples; empty where they are no converter's keys in order.
    """

    layout: Literal["", "interleaved", "pairs"] = ""
    first_key: str = ""
    last_key: str = ""


class FieldScan(Struct, kw_only=True, omit_defaults=True):
    """What the records of a segment have of the fields that options name.

    Attributes:
        found: options and fields, as the user gives them, that a record has.
        there: names of fields that there are, of some records.
    """

    found: list[str] = []
    there: list[str] = []


class SegmentScan(Struct, kw_only=True, omit_defaults=True):
    """What one pass over a segment found, and a look at its first images.

    Attributes:
        records: in the segment.
        crc32: of all records' bytes.
        record_bytes: of all records.
        probed_records: records whose images were looked for.
        probed_images: images that those name.
        probed_found: of these, there.
        probed_bytes: of those files.
        looked_in: where images were looked for.
        shard: of an input that is a shard.
        fields: of the fields that options name; None where none does.
    """

    records: int = 0
    crc32: int = 0
    record_bytes: int = 0
    probed_records: int = 0
    probed_images: int = 0
    probed_found: int = 0
    probed_bytes: int = 0
    looked_in: str = ""
    shard: ShardScan | None = None
    fields: FieldScan | None = None


class PlanInput(Struct, kw_only=True):
    """An input file as it was when it was counted; `version` is that of `FileFacts`."""

    path: str
    name: str
    bytes: int
    version: str
    segments: list[Segment]
    scans: list[SegmentScan]

    @property
    def records(self) -> int:
        """Records of the whole file."""
        return sum(scan.records for scan in self.scans)

    @property
    def crc32(self) -> str:
        """Checksums of its segments' records."""
        return "-".join(f"{scan.crc32:08x}" for scan in self.scans)


class ConversionUnit(Struct, kw_only=True, frozen=True):
    """Work for one task: a segment, and the shards that it becomes."""

    segment: Segment
    file: str
    first_record: int
    num_records: int
    first_ordinal: int
    first_shard: int
    num_shards: int
    member: str | None = None
    """What the member is called where the names of sources are hidden; None: they are not."""

    @property
    def label(self) -> str:
        """File and member as they may be told."""
        if self.member is None:
            return self.segment.label
        return f"{self.file}:{self.member}" if self.member else self.file

    def cut(self, shard: int) -> int:
        """Where the unit's k-th shard begins, as a record of the unit; shards are even."""
        return self.num_records * shard // self.num_shards

    def places(self, shard: int) -> tuple[int, int]:
        """The records of the unit that a shard has: the first, and the one behind its last."""
        place = shard - self.first_shard
        return self.cut(place), self.cut(place + 1)


class ConversionPlan(Struct, kw_only=True):
    """Everything that is decided before the first shard is written."""

    format_version: str
    kind: Kind
    inputs: list[PlanInput]
    excluded: list[ExcludedInput]
    docs_per_shard: int
    units: list[ConversionUnit]
    options: dict[str, Any]
    versions: dict[str, str]
    fingerprint: str
    hidden: bool = False
    """The names in it are pseudonyms, and what is kept of it holds no path."""

    @property
    def num_records(self) -> int:
        """Records of all units."""
        return sum(unit.num_records for unit in self.units)

    @property
    def num_shards(self) -> int:
        """Shards of all units."""
        return sum(unit.num_shards for unit in self.units)

    def _most_bytes(self) -> float:
        """The most bytes of an image with --max-side: 1.5 a pixel, more than JPEG 95 takes."""
        side = self.options.get("max_side")
        if not side:
            return math.inf
        return 1.5 * float(side) ** 2 * (2 if self.options.get("resize_mode") == "shortest" else 1)

    def estimate(self) -> "ConversionEstimate":
        """What the work will read and write, from the looks at the inputs' first records."""
        scans = [scan for entry in self.inputs for scan in entry.scans]
        probed = max(1, sum(scan.probed_records for scan in scans))
        num_records = self.num_records * float(self.options.get("split_share", 1))
        images = sum(scan.probed_found for scan in scans) / probed * num_records
        image_bytes = sum(scan.probed_bytes for scan in scans) / probed * num_records
        record_bytes = sum(scan.record_bytes for scan in scans)
        written = min(image_bytes, images * self._most_bytes())
        return ConversionEstimate(
            images=round(images),
            read_bytes=round(image_bytes) + sum(entry.bytes for entry in self.inputs),
            # base64 is 4/3; a record's own text, its sha256, sizes and the tar's header and padding
            write_bytes=round(written * 4 / 3) + record_bytes + 2_000 * round(num_records),
            probed_images=sum(scan.probed_found for scan in scans),
        )


class ConversionEstimate(Struct, kw_only=True, frozen=True):
    """Sizes to expect, in bytes, from a sample of the images."""

    images: int
    read_bytes: int
    write_bytes: int
    probed_images: int


def make_plan(
    kind: Kind,
    inputs: list[PlanInput],
    excluded: list[ExcludedInput],
    *,
    docs_per_shard: int,
    num_shards: int | None,
    options: dict[str, Any],
    versions: dict[str, str],
) -> ConversionPlan:
    """Cut counted inputs into units and shards.

    Raises:
        UserError: more shards are asked for than there are records.
    """
    counts = [scan.records for entry in inputs for scan in entry.scans]
    if num_shards is not None:
        docs_per_shard = min(docs_per_shard, _docs_per_shard(counts, num_shards))
    options = options | {"docs_per_shard": docs_per_shard}
    return ConversionPlan(
        format_version=FORMAT_VERSION,
        kind=kind,
        inputs=inputs,
        excluded=excluded,
        docs_per_shard=docs_per_shard,
        units=_units(inputs, docs_per_shard),
        options=options,
        versions=versions,
        fingerprint=fingerprint_of(kind, inputs, options, versions),
    )


def _units(inputs: list[PlanInput], docs_per_shard: int) -> list[ConversionUnit]:
    units: list[ConversionUnit] = []
    ordinal = shard = 0
    for entry in inputs:
        record, member = 0, None
        for segment, scan in zip(entry.segments, entry.scans, strict=True):
            if segment.member != member:
                record, member = 0, segment.member
            shards = -(-scan.records // docs_per_shard)
            if scan.records:
                units.append(
                    ConversionUnit(
                        segment=segment,
                        file=entry.name,
                        first_record=record,
                        num_records=scan.records,
                        first_ordinal=ordinal,
                        first_shard=shard,
                        num_shards=shards,
                    )
                )
            record += scan.records
            ordinal += scan.records
            shard += shards
    return units


def _docs_per_shard(counts: Sequence[int], num_shards: int) -> int:
    """The largest shard that still gives at least so many."""
    if sum(counts) < num_shards:
        raise UserError(
            f"--num-shards {num_shards}: the inputs hold only {sum(counts)} records; "
            "ask for fewer shards"
        )
    low, high = 1, max(counts)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(-(-count // middle) for count in counts) >= num_shards:
            low = middle
        else:
            high = middle - 1
    return low


def fingerprint_of(
    kind: Kind, inputs: list[PlanInput], options: dict[str, Any], versions: dict[str, str]
) -> str:
    """A hash of all that decides the shards' bytes; no mount paths, no number of workers.

    Args:
        kind: of the conversion.
        inputs: in their order; name, size, records and CRC-32 of each are hashed.
        options: those that the bytes depend on.
        versions: of the libraries that they depend on.
    """
    facts = [(entry.name, entry.bytes, entry.records, entry.crc32) for entry in inputs]
    return manifest_fingerprint(kind, facts, options, versions)


def input_names(paths: Sequence[str]) -> list[str]:
    """The inputs relative to their common folder, so that a mount point does not matter."""
    parts = [absolute(path).split("/") for path in paths]
    shared = 0
    for names in zip(*(part[:-1] for part in parts), strict=False):
        if len(set(names)) > 1:
            break
        shared += 1
    return ["/".join(part[shared:]) for part in parts]


def save_plan(plan: ConversionPlan, output: str) -> None:
    """Keep the plan in the output folder."""
    write_atomically(os.path.join(output, PLAN_NAME), encode_record(plan))


def load_plan(output: str) -> ConversionPlan | None:
    """The plan of an earlier run into this folder, or None.

    Raises:
        UserError: there is one that cannot be read, or the output is no folder.
    """
    path = os.path.join(output, PLAN_NAME)
    try:
        return msgspec.json.decode(read_bytes(path), type=ConversionPlan)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{output}: cannot be used as output: {error.strerror or error}") from error
    except msgspec.DecodeError as error:
        raise UserError(f"{path}: not a plan of this version ({error}); use --overwrite") from error


def differences(before: ConversionPlan, now: ConversionPlan) -> list[str]:
    """What makes two plans' shards differ, one line each."""
    lines = []
    for title, old, new in (
        ("option", before.options, now.options),
        ("version of", before.versions, now.versions),
    ):
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                lines.append(f"{title} {name}: was {old.get(name)}, is {new.get(name)}")
    if before.format_version != now.format_version:
        lines.append(f"format version: was {before.format_version}, is {now.format_version}")
    if before.kind != now.kind:
        lines.append(f"kind: was {before.kind}, is {now.kind}")
    old_inputs = {entry.name: entry for entry in before.inputs}
    new_inputs = {entry.name: entry for entry in now.inputs}
    for name in sorted(old_inputs.keys() | new_inputs.keys()):
        old_entry, new_entry = old_inputs.get(name), new_inputs.get(name)
        if old_entry is None or new_entry is None:
            lines.append(f"input {name}: {'added' if old_entry is None else 'gone'}")
        elif old_entry.crc32 != new_entry.crc32 or old_entry.bytes != new_entry.bytes:
            lines.append(f"input {name}: its contents changed")
    if not lines:
        lines.append("inputs: another order")
    return lines


def refuse_another(before: ConversionPlan | None, now: ConversionPlan, output: str) -> None:
    """Raise UserError where the output holds shards of another plan, with the differences."""
    if before is not None and before.fingerprint != now.fingerprint:
        raise UserError(
            f"{output}: holds another conversion; use --overwrite or another folder. "
            + "; ".join(differences(before, now)[:10])
        )
