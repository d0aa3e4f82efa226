"""The shards that a stream's lanes jump about in: an index and a map of each, a bounded number.

A sample is read by its ordinal; nothing but its own bytes is touched, and its pages are let go
after use, so that resident memory is the indexes (about 60 bytes a sample) however large the shards
are. Maps are closed when others are needed more (each holds a file descriptor); to open one again
costs some 20 us, the index stays.
"""

import mmap
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from flamingo.data.catalogue import Shard
from mmdata.errors import BadInputError, MMDataError
from mmdata.selection import DocumentReason
from mmdata.shards.index import Entry, ShardIndex, index_shard, is_member_at
from mmdata.storage.files import Buffer, map_file
from mmdata.usage.records import UnusableError

#: Maps that are open at once: well below the usual limit of 1,024 open files.
_MOST_MAPS = 256
_T = TypeVar("_T")


class Store(Protocol):
    """Where shards that are not on this machine come from."""

    def map(self, shard: Shard) -> Buffer:
        """A local copy as memory, waited for; it stays good while the map is open."""
        ...

    def expect(self, shards: Sequence[Shard]) -> None:
        """Begin to fetch what will be needed."""
        ...


@dataclass(slots=True)
class Loan:
    """A sample's bytes, until they are given back.

    Attributes:
        key: of the sample.
        members: views of the bytes by extension.
    """

    key: str
    members: dict[str, memoryview]
    _data: Buffer
    _entries: list[Entry] = field(default_factory=list)

    def give_back(self) -> None:
        """Let go of the pages; views stay good, they are read again where one is used."""
        self.members = {}
        if isinstance(self._data, mmap.mmap) and self._entries and not self._data.closed:
            page = mmap.PAGESIZE
            first = min(entry.offset for entry in self._entries) // page * page
            last = max(entry.offset + entry.size for entry in self._entries)
            self._data.madvise(mmap.MADV_DONTNEED, first, last - first)


class Shelf:
    """Shards at hand; a context manager.

    Args:
        shards: of the stream.
        store: of those that are not local; None when all are.
        index_folder: where indexes of foreign tars are kept when not beside them.
        most_indexes: shards whose index is kept.
        most_maps: shards that are open at once.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        *,
        store: Store | None = None,
        index_folder: str | None = None,
        most_indexes: int,
        most_maps: int = _MOST_MAPS,
    ) -> None:
        self._shards, self._store, self._index_folder = shards, store, index_folder
        self._most_indexes, self._most_maps = most_indexes, most_maps
        self._indexes: OrderedDict[int, ShardIndex] = OrderedDict()
        self._maps: OrderedDict[int, Buffer] = OrderedDict()
        self._expected: dict[int, list[int]] = {}
        #: Shards that were opened, for tests and reports.
        self.opened: set[int] = set()

    @property
    def fetches(self) -> bool:
        """Whether it is worth telling what will be needed."""
        return self._store is not None

    def read(self, shard: int, ordinal: int) -> Loan:
        """A sample.

        Raises:
            UnusableError: the bytes there are not that sample.
            BadInputError: the shard cannot be read, or is not what its manifest says.
            StorageError: it cannot be fetched.
        """
        index = self._index(shard)
        key, entries = index.key(ordinal), index.entries(ordinal)
        data = self._map(shard)
        last = max(entry.offset + entry.size for entry in entries)
        ours = self._shards[shard].sha256 is not None and entries[0].extension == "json"
        if last > len(data) or (ours and not is_member_at(data, key, entries[0])):
            raise UnusableError(DocumentReason.DAMAGED)
        view = memoryview(data)
        members = {
            entry.extension: view[entry.offset : entry.offset + entry.size] for entry in entries
        }
        return Loan(key, members, data, entries)

    def key(self, shard: int, ordinal: int) -> str:
        """Of a sample that cannot be read."""
        return self._index(shard).key(ordinal)

    def expect(self, lane: int, shards: list[int]) -> None:
        """Say what a lane will need: what is remote is fetched ahead."""
        if self._store is not None and self._expected.get(lane) != shards:  # a new window
            self._expected[lane] = shards
            self._store.expect([self._shards[shard] for shard in shards])

    def _index(self, shard: int) -> ShardIndex:
        return _recent(self._indexes, shard, self._most_indexes, self._load_index, _forget)

    def _map(self, shard: int) -> Buffer:
        return _recent(self._maps, shard, self._most_maps, self._open, _close)

    def _load_index(self, shard: int) -> ShardIndex:
        described = self._shards[shard]
        try:
            if described.is_remote:
                index = ShardIndex.of_headers(described.path, self._map(shard))
            else:
                index = index_shard(described.path, folder=self._index_folder)
        except OSError as error:
            raise _cannot_read(described.path, error) from error
        if len(index) != described.num_samples:
            raise BadInputError(
                f"{described.path}: expected {described.num_samples} samples as its manifest says, "
                f"got {len(index)}"
            )
        return index

    def _open(self, shard: int) -> Buffer:
        described = self._shards[shard]
        self.opened.add(shard)
        try:
            if self._store is not None and described.is_remote:
                data = self._store.map(described)
            else:
                data = map_file(described.path)
        except OSError as error:
            raise _cannot_read(described.path, error) from error
        if isinstance(data, mmap.mmap):
            data.madvise(mmap.MADV_RANDOM)
        return data

    def __enter__(self) -> "Shelf":
        return self

    def __exit__(self, *_: object) -> None:
        while self._maps:
            _close(self._maps.popitem()[1])


def _cannot_read(path: str, error: OSError) -> MMDataError:
    """One line; what a store says of itself stays as it is."""
    if isinstance(error, MMDataError):
        return error
    return BadInputError(f"{path}: {error.strerror or error}")


def _recent(
    kept: "OrderedDict[int, _T]",
    key: int,
    most: int,
    make: Callable[[int], _T],
    drop: Callable[[_T], None],
) -> _T:
    """A value, made when it is not there; the one used longest ago goes."""
    if key not in kept:
        kept[key] = make(key)
        if len(kept) > most:
            drop(kept.popitem(last=False)[1])
    kept.move_to_end(key)
    return kept[key]


def _forget(index: ShardIndex) -> None:
    """An index needs no closing."""


def _close(data: Buffer) -> None:
    if isinstance(data, mmap.mmap):
        with suppress(BufferError):  # a member is still in use: the map goes with the last of them
            data.close()
