"""Read the samples of a shard, in order or by key, from memory-mapped bytes.

Where a samples table stands beside an interleaved shard with headers like ours, it is the index:
nothing but the wanted member is touched. Otherwise the headers are (2.5 us a member, once), in any
dialect; a table beside them must name members that are there. Members are views of the map, no
bytes are copied; they keep the map alive, so let go of them before the shards pile up. Damage is an
error here, not a silent end as in tarfile: `mmdata validate` says all there is to say.
"""

import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from mmdata.errors import BadInputError
from mmdata.shards.naming import SAMPLES, TAR
from mmdata.shards.structure import Damage, Fault, Member, walk
from mmdata.shards.tar import BLOCK_BYTES, is_our_header
from mmdata.storage.files import exists, map_file, read_bytes
from mmdata.storage.urls import is_url
from schemas.manifest import GROUP_COLUMNS, SAMPLES_COLUMNS

#: Faults that leave every member where it is.
HARMLESS_DAMAGE = frozenset((Damage.NOT_A_FILE, Damage.TRAILING, Damage.PADDING))


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample.

    Attributes:
        key: of the sample.
        members: the bytes of its members by extension, in the order of the tar.
        offset: byte offset in the tar of the first member's data.
    """

    key: str
    members: dict[str, memoryview]
    offset: int


@dataclass(frozen=True, slots=True)
class _Entry:
    extension: str
    offset: int
    size: int


class ShardReader:
    """The samples of one tar.

    A context manager; also iterable, in the order of the tar.

    Raises:
        BadInputError: the file cannot be opened, is no tar, is damaged, two of its members have one
            name, or its samples table belongs to another tar.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            mapped = map_file(self.path)
        except OSError as error:
            raise BadInputError(f"{self.path}: {error.strerror or error}") from error
        self._data: mmap.mmap | bytes = mapped
        self._view = memoryview(self._data)
        try:
            self._index = self._index_from_table() or self._index_from_headers()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[Sample]:
        for key in self._index:
            yield self.read(key)

    def __contains__(self, key: object) -> bool:
        return key in self._index

    @property
    def keys(self) -> list[str]:
        """Keys of the samples, in the order of the tar."""
        return list(self._index)

    def read(self, key: str) -> Sample:
        """One sample.

        Raises:
            KeyError: the shard has no such key.
            BadInputError: the samples table names a place where that sample is not.
        """
        entries = self._index[key]
        members = {}
        for entry in entries:
            members[entry.extension] = self._view[entry.offset : entry.offset + entry.size]
        return Sample(key, members, entries[0].offset)

    def close(self) -> None:
        """Let go of the file. Views of members stay good; the map goes with the last of them."""
        self._view.release()
        data, self._data = self._data, b""
        if isinstance(data, mmap.mmap):
            try:
                data.close()
            except BufferError:
                return  # a member is still in use: the map closes when it is dropped

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _index_from_table(self) -> dict[str, list[_Entry]] | None:
        """The index that stands beside the tar; None without one.

        The rows of a pairs layout are about pictures, and those of shards by others about members
        whose headers are not like ours: then the headers are the index, and the rows are looked up.
        """
        beside = samples_path(self.path)
        if not exists(beside):
            return None
        columns = read_samples_table(beside, ["key", "offset", "size"])
        rows = list(zip(columns["key"], columns["offset"], columns["size"], strict=True))
        if all(self._is_ours_at(*row) for row in rows):
            return {key: [_Entry("json", offset, size)] for key, offset, size in rows}
        index = self._index_from_headers()
        for key, offset, size in rows:
            members = index.get(key, ())
            if not any((one.offset, one.size) == (offset, size) for one in members):
                raise BadInputError(
                    f"{beside}: {key} is not at byte {offset} of "
                    f"{os.path.basename(self.path)}: the table belongs to another shard, or one of "
                    "them is damaged; mmdata validate tells which"
                )
        return index

    def _is_ours_at(self, key: str, offset: int, size: int) -> bool:
        """Whether a document has its data there, behind a header like ours."""
        if not BLOCK_BYTES <= offset <= len(self._data) - size:
            return False
        return is_our_header(self._data[offset - BLOCK_BYTES : offset], f"{key}.json", size)

    def _index_from_headers(self) -> dict[str, list[_Entry]]:
        """The index that the tar's own headers make."""
        index: dict[str, list[_Entry]] = {}
        members = []
        for member in walk(self._data, partial(refuse_damage, self.path)):
            key, extension = split_name(member.name)
            if key:
                index.setdefault(key, []).append(_Entry(extension, member.offset, member.size))
                members.append(member)
        if any(len({one.extension for one in many}) < len(many) for many in index.values()):
            raise BadInputError(f"{self.path}: {name_told_twice(members)}")
        return index


def refuse_damage(path: str, fault: Fault) -> None:
    """Stop at damage that hides samples, or may hide them: what every reader of a tar asks.

    A tar without its end mark is taken for one that was cut between two members: nobody can tell
    it from that.

    Args:
        path: of the tar, for the message.
        fault: what `walk` reports.

    Raises:
        BadInputError: the fault is of that kind.
    """
    if fault.damage in HARMLESS_DAMAGE:
        return
    told = f"expected {fault.expected}, got {fault.got}"
    if fault.damage in (Damage.NOT_A_TAR, Damage.EMPTY_FILE):
        raise BadInputError(f"{path}: not a tar: {told}")
    if fault.damage == Damage.END_MARK:
        told += ": it may have been cut here, and members be lost"
    raise BadInputError(
        f"{path}: damaged at byte {fault.offset}: {told}; mmdata validate {path} says more, mmdata "
        "repair saves what can be saved"
    )


def split_name(name: str) -> tuple[str, str]:
    """(key, extension) as webdataset splits a member's name; ("", "") for what it skips.

    The key goes to the first dot of the last part of the path; extensions are in lower case.
    """
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    if not stem or not extension:
        return "", ""
    return folder + slash + stem, extension.lower()


def dots_hint(extensions: Iterable[str]) -> str:
    """What to say of a sample that lacks a part, where dots in its name may be why; or nothing."""
    dotted = next((kind for kind in extensions if "." in kind), "")
    if not dotted:
        return ""
    return (
        f" (a key ends at the first dot of a name, so that {dotted!r} is an extension to readers: "
        "rename the members)"
    )


def name_told_twice(members: Sequence[Member]) -> str:
    """What to say of a tar two of whose members are the same part of one sample."""
    first: dict[tuple[str, str], Member] = {}
    for member in members:
        before = first.setdefault(split_name(member.name), member)
        if before is not member:
            return (
                f"two members are named {member.name!r} (bytes {before.offset} and "
                f"{member.offset}), and which of them is the sample's nobody can tell; mmdata "
                "repair keeps both, under names of their own"
            )
    raise ValueError("each name is there once")


def samples_path(shard: str | os.PathLike[str]) -> str:
    """Where a shard's samples table stands, if it has one."""
    return os.fspath(shard).removesuffix(TAR) + SAMPLES


@contextmanager
def open_samples_table(path: str) -> Iterator[Any]:
    """A samples table as a pyarrow.parquet.ParquetFile.

    Raises:
        BadInputError: it cannot be read, or what is asked of it is not there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # read_table takes thrice as long for a file: it looks for a data set first.
        source = pa.BufferReader(read_bytes(path)) if is_url(path) else path
        with pq.ParquetFile(source, pre_buffer=False) as file:
            yield file
    except (OSError, KeyError, UnicodeDecodeError, pa.ArrowException) as error:
        raise BadInputError(f"{path}: not a samples table: {error}") from error


def read_samples_table(path: str, columns: list[str]) -> dict[str, list[Any]]:
    """Columns of a samples table as lists, a value a row.

    Args:
        path: of the table, here or in a store.
        columns: names of those that are wanted.

    Raises:
        BadInputError: it cannot be read or lacks a column.
    """
    with open_samples_table(path) as file:
        table = file.read(columns=columns, use_threads=False)
        return {name: table.column(name).to_pylist() for name in columns}


def read_samples_rows(path: str, columns: list[str]) -> list[dict[str, Any]]:
    """Rows of a samples table.

    Args:
        path: of the table, here or in a store.
        columns: names of those that are wanted.

    Raises:
        BadInputError: it cannot be read or lacks a column.
    """
    table = read_samples_table(path, columns)
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def samples_columns(path: str) -> list[str]:
    """The columns that we know of and a samples table has: tables of groups have one more.

    Raises:
        BadInputError: it cannot be read.
    """
    with open_samples_table(path) as file:
        there = file.schema_arrow.names
        return [*SAMPLES_COLUMNS, *(name for name in GROUP_COLUMNS if name in there)]
