"""Millions of image names and URLs to places, in sorted arrays.

A name is found as the member's path, as its last part, or without its extension, in that order of
preference, so what is sorted is the stem and the others only choose among equals. Names themselves
are not kept, but 64-bit digests of them: 32 bytes an image (and 24 a URL), 320 MB for 10 million,
where a dict of strings would take 2 GB; made at about 2.2 us a name, looked up in 8. That a name
which is nowhere is taken for one of 10 million has odds of 1 in 10^12; URLs compare 128 bits.
"""

from array import array
from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Digests = NDArray[np.uint64]


def _digest(text: str) -> int:
    data = text.encode("utf-8", "surrogateescape")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


def _digests(text: str) -> tuple[int, int]:
    data = text.encode("utf-8", "surrogatepass")
    whole = blake2b(data, digest_size=16).digest()
    return int.from_bytes(whole[:8], "little"), int.from_bytes(whole[8:], "little")


def stem_of(name: str) -> str:
    """The last part of a name, without its extension."""
    base = name.rpartition("/")[2]
    stem, dot, _ = base.rpartition(".")
    return stem if dot else base


class NameIndex:
    """Where images are, by name and by URL; a place is a number that the caller gave."""

    def __init__(self) -> None:
        self._building: dict[str, array[int]] = {}
        self._names: dict[str, Digests] = {}
        for column in ("stem", "base", "path", "place", "url", "check", "target"):
            self._building[column] = array("Q")

    def add(self, name: str, place: int) -> None:
        """An image's name, as the path that it has in its archive or folder."""
        building = self._building
        building["stem"].append(_digest(stem_of(name)))
        building["base"].append(_digest(name.rpartition("/")[2]))
        building["path"].append(_digest(name))
        building["place"].append(place)

    def add_url(self, url: str, place: int) -> None:
        """The URL that an image came from."""
        first, second = _digests(url)
        self._building["url"].append(first)
        self._building["check"].append(second)
        self._building["target"].append(place)

    def finish(self) -> None:
        """Sort; nothing is added behind this. Of equal names the first added is found."""
        self._sort("stem", ("stem", "base", "path", "place"))
        self._sort("url", ("url", "check", "target"))

    def _sort(self, by: str, columns: Iterable[str]) -> None:
        order = np.argsort(np.frombuffer(self._building[by], np.uint64), kind="stable")
        for column in columns:
            values = np.frombuffer(self._building.pop(column), np.uint64)
            self._names[column] = values[order]

    @property
    def has_urls(self) -> bool:
        """Whether images can be found by URL."""
        return len(self._names["url"]) > 0

    def find(self, name: str, url: str = "") -> int | None:
        """The place of an image, by its URL where that is known, else by its name."""
        if url and self.has_urls:
            first, second = _digests(url)
            for row in self._rows("url", first):
                if int(self._names["check"][row]) == second:
                    return int(self._names["target"][row])
        return self._find_name(name) if name else None

    def _find_name(self, name: str) -> int | None:
        rows = self._rows("stem", _digest(stem_of(name)))
        for column, wanted in (("path", name), ("base", name.rpartition("/")[2])):
            digest = _digest(wanted)
            for row in rows:
                if int(self._names[column][row]) == digest:
                    return int(self._names["place"][row])
        return int(self._names["place"][rows[0]]) if rows else None

    def _rows(self, column: str, digest: int) -> range:
        values = self._names[column]
        wanted = np.uint64(digest)
        return range(
            int(np.searchsorted(values, wanted, "left")),
            int(np.searchsorted(values, wanted, "right")),
        )
