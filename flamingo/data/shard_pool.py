"""The shards that a stream's lanes jump about in: an index and an open file of each, so many.

A sample is read by its ordinal; nothing but the members that training looks at is read, and they
are in memory only until the sample is made, so that resident memory is the indexes (about 60 bytes
a sample) however large the shards are. Files are closed when others are needed more; to open one
again costs some 20 us, the index stays. They are read and not mapped (`mmdata/storage/pread.py`): a
shard that is cut short during a run is a damaged sample, and not the end of the process.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from flamingo.data.cache import ShardCache
from mmdata.catalogue.shards import Shard
from mmdata.errors import BadInputError, MMDataError
from mmdata.shards.index import Entry, ShardIndex, index_shard, is_member
from mmdata.shards.tar import BLOCK_BYTES
from mmdata.storage.files import open_buffer
from mmdata.storage.pread import PreadFile
from mmdata.training_view.records import IMAGE_EXTENSIONS, UnusableError
from mmdata.training_view.selection import DocumentReason

_READ = frozenset((*IMAGE_EXTENSIONS, "txt", "json"))
#: Files that are open at once: well below the usual limit of 1,024 open files.
_MOST_OPEN = 256
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class StoredSample:
    """A sample as it is in its shard.

    Attributes:
        key: of the sample.
        members: by extension, those that training looks at.
    """

    key: str
    members: dict[str, memoryview]


class ShardPool:
    """Shards at hand; a context manager.

    Args:
        shards: of the stream.
        store: of those that are not local; None when all are.
        index_folder: where indexes of foreign tars are kept when not beside them.
        most_indexes: shards whose index is kept.
        most_open: shards that are open at once.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        *,
        store: ShardCache | None = None,
        index_folder: str | None = None,
        most_indexes: int,
        most_open: int = _MOST_OPEN,
    ) -> None:
        self._shards, self._store, self._index_folder = shards, store, index_folder
        self._most_indexes, self._most_open = most_indexes, most_open
        self._indexes: OrderedDict[int, ShardIndex] = OrderedDict()
        self._files: OrderedDict[int, PreadFile] = OrderedDict()
        self._expected: dict[int, list[int]] = {}
        #: Shards that were opened, for tests and reports.
        self.opened: set[int] = set()

    @property
    def fetches(self) -> bool:
        """Whether it is worth telling what will be needed."""
        return self._store is not None

    def read(self, shard: int, ordinal: int) -> StoredSample:
        """A sample.

        Raises:
            UnusableError: the bytes there are not that sample.
            BadInputError: the shard cannot be read, or is not what its manifest says.
            StorageError: it cannot be fetched.
        """
        index = self._index(shard)
        key = index.key(ordinal)
        members = {}
        for entry in index.entries(ordinal):
            if entry.extension in _READ:
                members[entry.extension] = self._member(shard, key, entry)
        return StoredSample(key, members)

    def key(self, shard: int, ordinal: int) -> str:
        """The key of a sample, from the index alone: also of one that cannot be read."""
        return self._index(shard).key(ordinal)

    def expect(self, lane: int, shards: list[int]) -> None:
        """Say what a lane will need: what is remote is fetched ahead."""
        if self._store is not None and self._expected.get(lane) != shards:  # a new window
            self._expected[lane] = shards
            self._store.expect([self._shards[shard] for shard in shards])

    def _index(self, shard: int) -> ShardIndex:
        return _recent(self._indexes, shard, self._most_indexes, self._load_index, _forget)

    def _member(self, shard: int, key: str, entry: Entry) -> memoryview:
        """The data of a member, which its header stands before."""
        start, size = entry.offset - BLOCK_BYTES, BLOCK_BYTES + entry.size
        try:
            file = self._file(shard)
            is_there = start >= 0 and start + size <= len(file)
            data = file.read(start, size) if is_there else b""
        except OSError as error:
            raise _cannot_read(self._shards[shard].path, error) from error
        if not is_member(data, key, entry):
            raise UnusableError(DocumentReason.DAMAGED)
        return memoryview(data)[BLOCK_BYTES:]

    def _file(self, shard: int) -> PreadFile:
        return _recent(self._files, shard, self._most_open, self._open, PreadFile.close)

    def _load_index(self, shard: int) -> ShardIndex:
        described = self._shards[shard]
        try:
            if described.is_remote:
                with open_buffer(self._file(shard).path) as data:
                    index = ShardIndex.of_headers(described.path, data)
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

    def _open(self, shard: int) -> PreadFile:
        described = self._shards[shard]
        self.opened.add(shard)
        try:
            if self._store is not None and described.is_remote:
                return self._store.open(described)
            return PreadFile(described.path)
        except OSError as error:
            raise _cannot_read(described.path, error) from error

    def __enter__(self) -> "ShardPool":
        return self

    def __exit__(self, *_: object) -> None:
        while self._files:
            self._files.popitem()[1].close()


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
