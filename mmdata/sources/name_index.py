"""Millions of image names and URLs to places, in sorted arrays.

An exact name is found by its hash, and compared: 20 bytes an image and the name itself, where a
dict would take 200. What a name may mean that is not there (`names.py`) is asked of a second index
of all ends of all paths, 13 bytes for each, which is made when it is first needed; of more than
20 million ends it is not made, and only exact names are found. A URL takes 24 bytes, of which 128
bits are compared.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from mmdata.sources.names import PICTURE_ENDINGS, NamedImages, Near, canonical, split_ending

_MOST_ENDS = 20_000_000
_MOST_NAMED = 3
_WHOLE = 0x80
_CODES = {ending: code for code, ending in enumerate(["", *sorted(PICTURE_ENDINGS)])}


def _digests(text: str) -> tuple[int, int]:
    data = text.encode("utf-8", "surrogatepass")
    whole = blake2b(data, digest_size=16).digest()
    return int.from_bytes(whole[:8], "little"), int.from_bytes(whole[8:], "little")


def _as_array(values: NDArray[np.int64]) -> "array[int]":
    found = array("q")
    found.frombytes(values.tobytes())
    return found


def _equal(values: "array[int]", wanted: int) -> slice:
    """Where a value stands among sorted ones; in Python faster than numpy is for one."""
    first = bisect_left(values, wanted)
    last = first
    if first < len(values) and values[first] == wanted:
        last = bisect_right(values, wanted, first)
    return slice(first, last)


class NameIndex:
    """Where images are, by name and by URL; a place is a number that the caller gave."""

    def __init__(self, most_ends: int = _MOST_ENDS) -> None:
        self._most_ends = most_ends
        self._text = bytearray()
        self._starts = array("Q", [0])
        self._places = array("I")
        self._hashes = array("q")
        self._urls = {column: array("Q") for column in ("url", "check", "target")}
        self._sorted = array("q")
        self._order: NDArray[np.uint32] = np.empty(0, np.uint32)
        self._sorted_urls: dict[str, NDArray[np.uint64]] = {}
        self._ends: _Ends | None = None

    def __len__(self) -> int:
        return len(self._places)

    def add(self, name: str, place: int) -> None:
        """An image's name, as the path that it has in its archive or folder."""
        self._text += name.encode("utf-8", "surrogatepass")
        self._starts.append(len(self._text))
        self._places.append(place)
        self._hashes.append(hash(name))

    def add_url(self, url: str, place: int) -> None:
        """The URL that an image came from."""
        first, second = _digests(url)
        self._urls["url"].append(first)
        self._urls["check"].append(second)
        self._urls["target"].append(place)

    def finish(self) -> None:
        """Sort; nothing is added behind this."""
        hashes = np.array(self._hashes, np.int64)
        self._hashes = array("q")
        order = np.argsort(hashes, kind="stable")
        self._sorted, self._order = _as_array(hashes[order]), order.astype(np.uint32)
        by_url = np.argsort(np.array(self._urls["url"], np.uint64), kind="stable")
        for column, values in self._urls.items():
            self._sorted_urls[column] = np.array(values, np.uint64)[by_url]
        self._urls = {}

    @property
    def has_urls(self) -> bool:
        """Whether images can be found by URL."""
        return len(self._sorted_urls["url"]) > 0

    @property
    def too_large(self) -> bool:
        """Whether so many names are in it that only exact ones are found."""
        return self._ends is not None and self._ends.digests is None

    def exact(self, name: str) -> list[int]:
        """The places of an image of exactly this name, in the order in which they were added."""
        rows = self._order[_equal(self._sorted, hash(name))].tolist()
        return [self._places[row] for row in rows if self._name(row) == name]

    def of_url(self, url: str) -> int | None:
        """The place of the first image that came from a URL."""
        first, second = _digests(url)
        urls, wanted = self._sorted_urls["url"], np.uint64(first)
        left, right = (int(np.searchsorted(urls, wanted, side)) for side in ("left", "right"))
        for row in range(left, right):
            if int(self._sorted_urls["check"][row]) == second:
                return int(self._sorted_urls["target"][row])
        return None

    def near(self, name: str) -> list[Near]:
        """The nearest names that one may mean, at most three of them."""
        if self._ends is None:
            self._ends = _Ends(map(self._name, range(len(self))), self._most_ends)
        rows, steps = self._ends.nearest(name)
        found: dict[str, None] = {}
        for row in rows:
            found[self._name(int(row))] = None
            if len(found) == _MOST_NAMED:
                break
        return [Near(one, steps) for one in found]

    def _name(self, row: int) -> str:
        text = self._text[self._starts[row] : self._starts[row + 1]]
        return text.decode("utf-8", "surrogatepass")


class IndexedImages(NamedImages):
    """Images whose names and URLs are in an index.

    Args:
        what: holds them, for a person.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._index = NameIndex()

    @property
    def by_url(self) -> bool:
        """Whether images can be found by URL."""
        return self._index.has_urls

    def near(self, name: str) -> list[Near]:
        """The names that one may mean."""
        return self._index.near(name)

    def nowhere(self) -> str:
        """What is said of an image that is not there, and that only exact names may be found."""
        more = " (of so many only exact names are found)" if self._index.too_large else ""
        return f"not in {self._what}{more}"


class _Ends:
    """All ends of all paths without the endings of pictures: `a/b/1.jpg` is `1`, `b/1`, `a/b/1`.

    Attributes:
        digests: sorted hashes of the ends; None where there are too many of them.
        rows: the name that each is the end of.
        kinds: the code of the name's ending, and whether the end is the whole path.
    """

    def __init__(self, names: Iterable[str], most: int) -> None:
        digests, rows, kinds = array("q"), array("I"), bytearray()
        self.digests: array[int] | None = None
        for row, name in enumerate(names):
            stem, ending = split_ending(canonical(name))
            code = _CODES[ending]
            digests.append(hash(stem))
            rows.append(row)
            kinds.append(code | _WHOLE)
            at = stem.find("/")
            while at >= 0:
                digests.append(hash(stem[at + 1 :]))
                rows.append(row)
                kinds.append(code)
                at = stem.find("/", at + 1)
            if len(rows) > most:
                return
        found = np.array(digests, np.int64)
        order = np.argsort(found, kind="stable")
        self.digests = _as_array(found[order])
        self.rows: NDArray[np.uint32] = np.array(rows, np.uint32)[order]
        self.kinds: NDArray[np.uint8] = np.frombuffer(bytes(kinds), np.uint8)[order]

    def nearest(self, name: str) -> tuple[NDArray[np.uint32], int]:
        """Rows of the names that are the fewest steps away, and how many that is."""
        if self.digests is None:
            return np.empty(0, np.uint32), 0
        stem, ending = split_ending(canonical(name))
        equal = _equal(self.digests, hash(stem))
        if equal.start == equal.stop:
            return np.empty(0, np.uint32), 0
        kinds = self.kinds[equal]
        steps = (kinds < _WHOLE).astype(np.uint8) + ((kinds & ~np.uint8(_WHOLE)) != _CODES[ending])
        least = int(steps.min())
        return self.rows[equal][steps == least], least
