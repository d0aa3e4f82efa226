"""The names of the files in a folder, for when an image is not there under its own.

A folder is listed at the first such miss, once in a process, with all that lies below it, up to a
million files; links to folders are followed only where they lead into another folder that is
allowed, and hidden folders are left out. Of a larger folder nothing is kept, and which names may be
meant is asked of the disk: those at the record's own place, in both Unicode forms, with the ending
in lower and upper case, and with the endings of other pictures. That is some 40 questions a miss,
however many files there are; pictures that lie deeper are then not found. Both answers depend on
the files alone, not on what was asked before.
"""

import os
from collections.abc import Iterator
from functools import lru_cache

from mmdata.errors import ReadFaultError
from mmdata.sources.name_index import NameIndex
from mmdata.sources.names import (
    PICTURE_ENDINGS,
    Near,
    canonical,
    is_junk,
    split_ending,
    unicode_forms,
)

MOST_FILES = 1_000_000
_SKIPPED = (".tar", ".zip", ".parquet", ".json", ".txt")
_UNREADABLE = (PermissionError, FileNotFoundError, NotADirectoryError)


class FolderNames:
    """The names below a folder.

    Args:
        folder: its path.
        allowed: real paths that links may lead into; the first is the image folder's own.
        deep: whether the folders below it are looked into as well.
        most: of more files nothing is kept.
    """

    def __init__(self, folder: str, allowed: tuple[str, ...], *, deep: bool, most: int) -> None:
        self._folder = folder
        self._most = most
        self._index: NameIndex | None = NameIndex()
        for place, name in enumerate(_walk(folder, allowed, deep=deep)):
            if place == most:
                self._index = None
                return
            self._index.add(name, place)
        self._index.finish()

    @property
    def too_large(self) -> bool:
        """Whether there are so many files that only the record's own place is looked at."""
        return self._index is None or self._index.too_large

    def near(self, name: str) -> list[Near]:
        """The names that one may mean, relative to the folder; the nearest are enough."""
        if self._index is not None:
            found = self._index.near(name)
            if not self._index.too_large:
                return found
        return [
            Near(other, steps)
            for other, steps in _variants(canonical(name)).items()
            if os.path.isfile(f"{self._folder}/{other}")
        ]


@lru_cache(maxsize=4)
def names_of(folder: str, allowed: tuple[str, ...], *, deep: bool) -> FolderNames:
    """The names below a folder, listed once a process; see `FolderNames`."""
    return FolderNames(folder, allowed, deep=deep, most=MOST_FILES)


def _variants(name: str) -> dict[str, int]:
    """Other names at the same place, and how many steps each is away."""
    stem, ending = split_ending(name)
    base = name[: len(name) - len(ending)]
    written = {name: 0, stem + ending: 0}
    root, dot, last = name.rpartition(".")
    if dot and not ending:
        written[root + dot + last.upper()] = 0
    for other in (ending, *sorted(PICTURE_ENDINGS), ""):
        for case in (other, other.upper()):
            written.setdefault(base + case, int(other != ending))
    return {form: steps for text, steps in written.items() for form in unicode_forms(text)}


def _walk(folder: str, allowed: tuple[str, ...], *, deep: bool) -> Iterator[str]:
    """Names of files that may be pictures, in an order that is the same everywhere."""
    here = os.path.realpath(folder)
    seen = {here}
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        folders = []
        for entry in _entries(folder, prefix):
            name = prefix + entry.name
            if _is_folder(entry):
                hidden = entry.name.startswith(".") or is_junk(entry.name)
                if deep and not hidden and _may_follow(entry, here, allowed, seen):
                    folders.append(name + "/")
            elif not is_junk(entry.name) and not entry.name.lower().endswith(_SKIPPED):
                yield name
        waiting += reversed(folders)


def _entries(folder: str, prefix: str) -> "list[os.DirEntry[str]]":
    path = os.path.join(folder, prefix)
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except _UNREADABLE:  # not ours to look into, or gone just now
        return []
    except OSError as error:
        raise ReadFaultError(path, error) from error


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle, or to where nothing may be looked at
        return False


def _may_follow(
    entry: "os.DirEntry[str]", here: str, allowed: tuple[str, ...], seen: set[str]
) -> bool:
    """Whether to look into a folder: a link only where it leads to what is not listed anyway."""
    if not entry.is_symlink():
        return True
    target = os.path.realpath(entry.path)
    if target in seen or _is_inside(target, here):
        return False
    seen.add(target)
    return any(_is_inside(target, one) for one in allowed)


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
