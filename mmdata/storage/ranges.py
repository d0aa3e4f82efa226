"""A file in a store as memory of which only what is asked for is fetched.

What is known to be needed is fetched together, first: many small ranges at a time, near ones as
one. What turns out to be needed besides (damage, a table that lies) is fetched in blocks, of which
the last few are kept. For readers that look at little of a large file: the headers of a tar of 400
MB are 1 MB.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import cast

from mmdata.storage.files import Buffer, read_range
from mmdata.storage.urls import filesystem, is_url, store_errors

#: A gap that costs less to fetch than another request.
NEAR_BYTES = 64 * 2**10
BLOCK_BYTES = 2**20
_KEPT_BLOCKS = 16

Span = tuple[int, int]


class RangeBuffer:
    """A file to take slices of, as of bytes.

    Args:
        path: a URL (or a file, which is then read the same way).
        size: of the file, in bytes.
        spans: (start, end) of what is needed, fetched now.

    Attributes:
        fetched: bytes so far.

    Raises:
        StorageError: the store does not answer.
    """

    def __init__(self, path: str, size: int, spans: Iterable[Span] = ()) -> None:
        self.path = path
        self.fetched = 0
        self._size = size
        merged = list(_merged(spans, size))
        self._starts = [start for start, _ in merged]
        self._pieces = self._fetch(merged)
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        if stop <= start:
            return b""
        place = bisect_right(self._starts, start) - 1
        if place >= 0:
            offset = start - self._starts[place]
            piece = self._pieces[place]
            if offset + stop - start <= len(piece):
                return piece[offset : offset + stop - start]
        first = start - start % BLOCK_BYTES
        blocks = b"".join(self._block(at) for at in range(first, stop, BLOCK_BYTES))
        return blocks[start - first : stop - first]

    def find(self, wanted: bytes, start: int = 0, end: int | None = None) -> int:
        """Where some bytes are next, at or behind `start` and before `end`; -1 if nowhere."""
        overlap = len(wanted) - 1
        end = self._size if end is None else min(end, self._size)
        for at in range(max(0, start), end, BLOCK_BYTES):
            found = self[at : min(at + BLOCK_BYTES + overlap, end)].find(wanted)
            if found >= 0:
                return at + found
        return -1

    def _block(self, start: int) -> bytes:
        if start not in self._blocks:
            (self._blocks[start],) = self._fetch([(start, min(start + BLOCK_BYTES, self._size))])
            if len(self._blocks) > _KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(start)
        return self._blocks[start]

    def _fetch(self, spans: list[Span]) -> list[bytes]:
        self.fetched += sum(end - start for start, end in spans)
        if not is_url(self.path):
            return [read_range(self.path, start, end - start) for start, end in spans]
        if not spans:
            return []
        starts, ends = zip(*spans, strict=True)
        with store_errors(self.path):
            pieces = filesystem(self.path).cat_ranges(
                [self.path] * len(spans), list(starts), list(ends), on_error="raise"
            )
        return cast(list[bytes], pieces)


#: What a walk over a tar can be given.
Slices = Buffer | RangeBuffer


def _merged(spans: Iterable[Span], size: int) -> Iterator[Span]:
    """The spans within a file, in order, near ones as one."""
    begin = end = -1
    for start, stop in sorted((max(0, start), min(stop, size)) for start, stop in spans):
        if stop <= start:
            continue
        if begin >= 0 and start <= end + NEAR_BYTES:
            end = max(end, stop)
            continue
        if begin >= 0:
            yield begin, end
        begin, end = start, stop
    if begin >= 0:
        yield begin, end
