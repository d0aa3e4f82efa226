"""Rules over many shards, and over two datasets: what repeats, what leaked, what drifts.

Equal means equal by hash: of a document its sentences and images in order, of an image its file, of
a group (a patient) its name. The samples tables have these hashes, of groups where the conversion
was told what stays together; shards without a table are read. Hashes go to unnamed
temporary files, one a partition of all hashes, that are sorted one at a time: 24 bytes a document
and image on the disk, 240 MB of memory, 16 bytes more for each that repeats.
"""

import hashlib
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from os.path import basename
from typing import IO

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import BadInputError
from mmdata.shards.groups import read_label
from mmdata.shards.reader import ShardReader, read_samples_table, samples_path
from mmdata.storage.files import exists
from mmdata.training_view.records import (
    Base64,
    UnusableError,
    image_bytes,
    likely_rule,
    read_record,
)
from mmdata.validation.findings import Findings
from mmdata.validation.grouped import report_uncompared
from schemas.validation import AcrossReport

#: Partitions of the hashes. One is compared at a time, with 66 bytes a hash while it is sorted: 240
#: MB hold 3.5 million, so that these are enough for 56 million documents and 224 million images.
DOCUMENT_PARTITIONS, IMAGE_PARTITIONS = 16, 64
#: A shard's mean similarity is far off where it is so far from the mean of all (a cosine), and
#: that by so many standard errors: a small shard may differ by chance.
_FAR_OFF, _STANDARD_ERRORS = 0.02, 5.0

_ROW = np.dtype([("first", "<u8"), ("second", "<u8"), ("place", "<u8")])
_OTHER = np.uint64(1 << 63)
_SHARD_SHIFT = 32

Rows = NDArray[np.void]
Places = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Described:
    """What is compared of a sample.

    Attributes:
        key: of the sample.
        document: 16 bytes that stand for its sentences and images.
        images: the same of each image that has bytes.
        similarities: of each image with its sentence, where they are known.
        group: the same of what it belongs to; None where that is not told.
    """

    key: str
    document: bytes
    images: list[bytes]
    similarities: list[float]
    group: bytes | None = None


@dataclass(slots=True)
class _Mean:
    """The similarities of one shard: how many, their sum, the sum of their squares."""

    number: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, values: Sequence[float]) -> None:
        self.number += len(values)
        self.total += sum(values)
        self.squares += sum(value * value for value in values)

    @property
    def mean(self) -> float:
        return self.total / self.number


@dataclass(slots=True)
class _Hashes:
    """Hashes of one kind in partitions, each a file that ends with the process."""

    files: list[IO[bytes]]
    own: int = 0
    waiting: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, digest: bytes, place: int) -> None:
        first, second = (int.from_bytes(digest[at : at + 8], "little") for at in (0, 8))
        self.waiting.append((first, second, place))
        self.own += not place >> 63

    def spread(self) -> None:
        """Append what waits to the files."""
        rows = np.array(self.waiting, _ROW)
        for number, file in enumerate(self.files):
            file.write(rows[rows["second"] % np.uint64(len(self.files)) == number].tobytes())
        self.waiting.clear()

    def compare(self) -> "_Repeats":
        """What repeats, over all partitions."""
        found = []
        for file in self.files:
            file.seek(0)
            found.append(_repeats(np.frombuffer(file.read(), _ROW)))
            file.truncate(0)
        return _Repeats(*(_by_place(np.concatenate(part)) for part in zip(*found, strict=True)))


@dataclass(frozen=True, slots=True)
class _Repeats:
    """(n, 2) places: of what repeats, and of what it equals; sorted by the first.

    Attributes:
        again: of this dataset, equal to one before it.
        leaked: of this dataset, equal to one of the other.
    """

    again: Places
    leaked: Places


def compare_shards(paths: Sequence[str], other: Sequence[str], findings: Findings) -> AcrossReport:
    """DUP001, DUP002, LEAK001 to LEAK004, DRIFT001.

    Args:
        paths: shards of the dataset.
        other: shards of the dataset that it must share nothing with; may be none.
        findings: take what is found, under the names of the shards.
    """
    means = [_Mean() for _ in paths]
    every = [*paths, *other]
    with ExitStack() as stack:
        documents, images, groups = (
            _Hashes([stack.enter_context(tempfile.TemporaryFile()) for _ in range(partitions)])
            for partitions in (DOCUMENT_PARTITIONS, IMAGE_PARTITIONS, DOCUMENT_PARTITIONS)
        )
        for shard, path in enumerate(every):
            try:
                for row, sample in enumerate(describe(path)):
                    place = shard << _SHARD_SHIFT | row | (shard >= len(paths)) << 63
                    documents.add(sample.document, place)
                    for digest in sample.images:
                        images.add(digest, place)
                    if sample.group is not None:
                        groups.add(sample.group, place)
                    if shard < len(paths):
                        means[shard].add(sample.similarities)
            except (BadInputError, OSError) as error:
                findings.add("TAR012", "a shard to compare", str(error), shard=path)
            documents.spread()
            images.spread()
            groups.spread()
        same, pictures, together = documents.compare(), images.compare(), groups.compare()
    if other:
        report_uncompared(paths, other, findings)
    leaked_groups = _once_each(together.leaked)
    for code, pairs in (
        ("DUP001", same.again),
        ("DUP002", pictures.again),
        ("LEAK001", same.leaked),
        ("LEAK002", pictures.leaked),
        ("LEAK003", leaked_groups),
    ):
        _report(code, pairs, every, findings)
    known = [one.mean for one in means if one.number]
    return AcrossReport(
        documents=documents.own,
        images=images.own,
        repeated_documents=len(same.again),
        repeated_images=len(pictures.again),
        leaked_documents=len(same.leaked),
        leaked_images=len(pictures.leaked),
        mean_similarity=_drift(paths, means, findings),
        lowest_mean=min(known, default=None),
        highest_mean=max(known, default=None),
        groups=groups.own - len(together.again),
        leaked_groups=len(leaked_groups),
    )


def _once_each(pairs: Places) -> Places:
    """The first pair of each group of pairs whose second document is one and the same."""
    _, first = np.unique(pairs[:, 1], return_index=True)
    return pairs[np.sort(first)]


def describe(path: str) -> Iterator[Described]:
    """What is compared of every sample of a shard, in order.

    Raises:
        BadInputError: the shard or its samples table cannot be read.
    """
    beside = samples_path(path)
    if exists(beside):
        columns = ["key", "text_sha256", "image_sha256", "similarity"]
        told = read_label(beside) is not None
        table = read_samples_table(beside, [*columns, *(["group"] if told else [])])
        groups = table.pop("group", [])
        for row, (key, text, images, similarities) in enumerate(zip(*table.values(), strict=True)):
            known = [value for value in similarities if value is not None and math.isfinite(value)]
            described = _described(key, text, images, known)
            group = bytes.fromhex(groups[row]) if groups and groups[row] else None
            yield replace(described, group=group)
        return
    with ShardReader(path) as reader:
        for sample in reader:
            yield _read(sample.key, sample.members)


def _read(key: str, members: dict[str, memoryview]) -> Described:
    """A sample without a samples table; one that is no record is compared by its bytes."""
    try:
        record = read_record(members, likely_rule(members) or "interleaved")
    except UnusableError:
        whole = hashlib.sha256(b"".join(members.values())).hexdigest()
        return _described(key, whole, [], [])
    texts = b"".join(text.encode("utf-8", "surrogatepass") + b"\n" for text in record.texts)
    return _described(
        key,
        hashlib.sha256(texts).hexdigest(),
        [_hash_of(image) for image in record.images],
        list(record.candidates.similarity or ()),
    )


def _described(key: str, text: str, images: list[str], similarities: list[float]) -> Described:
    whole = hashlib.blake2b("".join([text, *images]).encode(), digest_size=16).digest()
    there = [bytes.fromhex(image[:32]) for image in images if image]
    return Described(key, whole, there, similarities)


def _hash_of(image: Base64 | memoryview | None) -> str:
    """sha256 of an image's file, as samples tables have it; empty of one that has no bytes."""
    try:
        data = b"" if image is None else image_bytes(image)
    except ValueError:
        return ""
    return hashlib.sha256(data).hexdigest() if data else ""


def _repeats(rows: Rows) -> tuple[Places, Places]:
    """What repeats of one partition: (again, leaked), see `_Repeats`."""
    if not len(rows):
        nothing = np.empty((0, 2), np.uint64)
        return nothing, nothing
    rows = rows[np.lexsort((rows["place"], rows["second"], rows["first"]))]
    places = rows["place"]
    same = (rows["first"][1:] == rows["first"][:-1]) & (rows["second"][1:] == rows["second"][:-1])
    starts = np.flatnonzero(np.concatenate(([True], ~same)))
    group = np.repeat(np.arange(len(starts)), np.diff([*starts, len(rows)]))
    first = places[starts][group]
    last = places[np.append(starts[1:], len(rows)) - 1][group]
    own = places < _OTHER
    again = own & np.concatenate(([False], same))
    leaked = own & (last >= _OTHER)
    return (
        np.stack((places[again], first[again]), axis=1),
        np.stack((places[leaked], last[leaked]), axis=1),
    )


def _by_place(pairs: Places) -> Places:
    return pairs[np.argsort(pairs[:, 0], kind="stable")]


def _report(code: str, pairs: Places, paths: Sequence[str], findings: Findings) -> None:
    """A finding for each pair; only those that are kept are looked up."""
    expected = "each once" if code.startswith("DUP") else "nothing of the other dataset"
    equal_to = "of the group of" if code == "LEAK003" else "equal to"
    kept = pairs[: findings.max_findings]
    for place, equal in kept.tolist():
        path, key = _where(place, paths)
        owner, equal_key = _where(equal, paths)
        got = f"{equal_to} {equal_key} of {basename(owner)}"
        findings.add(code, expected, got, key=key, shard=path)
    shards = len(np.unique(pairs[:, 0] >> np.uint64(_SHARD_SHIFT)))
    findings.count(code, len(pairs) - len(kept), shards=shards)


def _where(place: int, paths: Sequence[str]) -> tuple[str, str]:
    """(path of the shard, key of the sample)."""
    path = paths[(place & ~(1 << 63)) >> _SHARD_SHIFT]
    return path, _keys(path)[place & (1 << _SHARD_SHIFT) - 1]


@lru_cache(maxsize=8)
def _keys(path: str) -> list[str]:
    if exists(samples_path(path)):
        return list(read_samples_table(samples_path(path), ["key"])["key"])
    with ShardReader(path) as reader:
        return reader.keys


def _drift(paths: Sequence[str], means: Sequence[_Mean], findings: Findings) -> float | None:
    """DRIFT001; the mean of all."""
    number = sum(one.number for one in means)
    if not number:
        return None
    mean = sum(one.total for one in means) / number
    variance = max(0.0, sum(one.squares for one in means) / number - mean * mean)
    for path, one in zip(paths, means, strict=True):
        if one.number == 0 or abs(one.mean - mean) <= _FAR_OFF:
            continue
        if abs(one.mean - mean) > _STANDARD_ERRORS * math.sqrt(variance / one.number):
            expected = f"a mean similarity near {mean:.3f}, that of all shards"
            findings.add("DRIFT001", expected, f"{one.mean:.3f}", shard=path)
    return mean
