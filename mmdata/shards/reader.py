"""Read the samples of a shard, in order or by key, from memory-mapped bytes.

Where a samples table stands beside an interleaved shard, it is the index: nothing but the wanted
member is touched. Otherwise the headers are (2.5 us a member, once). Members are views of the map,
no bytes are copied; they keep the map alive, so let go of them before the shards pile up. Damage
is an error here, not a silent end as in tarfile: `mmdata validate` says all there is to say.
"""

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from mmdata.errors import BadInputError
from mmdata.shards.naming import SAMPLES, TAR
from mmdata.shards.structure import Damage, Fault, walk
from mmdata.shards.tar import BLOCK_BYTES, member_header
from mmdata.storage.files import exists, map_file, read_bytes
from mmdata.storage.urls import is_url

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
        BadInputError: the file cannot be opened, is no tar, is damaged, or its samples table
            belongs to another tar.
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _index_from_table(self) -> dict[str, list[_Entry]] | None:
        """The index that stands beside the tar; None where there is none, or a pairs layout's."""
        beside = samples_path(self.path)
        if not exists(beside):
            return None
        columns = read_samples_table(beside, ["key", "offset", "size"])
        rows = list(zip(columns["key"], columns["offset"], columns["size"], strict=True))
        if rows and not self._is_at(*rows[0]):
            return None
        for key, offset, size in rows:
            if not self._is_at(key, offset, size):
                raise BadInputError(
                    f"{beside}: {key} is not at byte {offset} of "
                    f"{os.path.basename(self.path)}: the table belongs to another shard, or one of "
                    "them is damaged; mmdata validate tells which"
                )
        return {key: [_Entry("json", offset, size)] for key, offset, size in rows}

    def _is_at(self, key: str, offset: int, size: int) -> bool:
        """Whether a member of ours has its data there."""
        if not BLOCK_BYTES <= offset <= len(self._data) - size:
            return False
        there = self._data[offset - BLOCK_BYTES : offset]
        try:
            return there == member_header(f"{key}.json", size)
        except ValueError:
            return False

    def _index_from_headers(self) -> dict[str, list[_Entry]]:
        """The index that the tar's own headers make."""
        index: dict[str, list[_Entry]] = {}
        for member in walk(self._data, self._refuse):
            key, extension = split_name(member.name)
            if key:
                index.setdefault(key, []).append(_Entry(extension, member.offset, member.size))
        return index

    def _refuse(self, fault: Fault) -> None:
        if fault.damage not in HARMLESS_DAMAGE:
            raise BadInputError(
                f"{self.path}: damaged at byte {fault.offset}: expected {fault.expected}, got "
                f"{fault.got}; mmdata validate {self.path} says more"
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


def samples_path(shard: str | os.PathLike[str]) -> str:
    """Where a shard's samples table stands, if it has one."""
    return os.fspath(shard).removesuffix(TAR) + SAMPLES


def read_samples_table(path: str, columns: list[str]) -> dict[str, list[Any]]:
    """Columns of a samples table as lists.

    Raises:
        BadInputError: it cannot be read or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # read_table takes thrice as long for a file: it looks for a data set first.
        source = pa.BufferReader(read_bytes(path)) if is_url(path) else path
        with pq.ParquetFile(source) as file:
            table = file.read(columns=columns, use_threads=False)
        return {name: table.column(name).to_pylist() for name in columns}
    except (OSError, KeyError, pa.ArrowException) as error:
        raise BadInputError(f"{path}: not a samples table: {error}") from error
