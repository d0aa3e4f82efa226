"""The files of an output folder as the questions about committed shards need them.

On a disk each question is a call of its own (20 us). In a store a call takes 20 ms, so what a run
asks of every shard is answered from one listing and from sidecars that are fetched together.
"""

import os
from typing import Protocol

from mmdata.shards.naming import SIDECAR, shard_of
from mmdata.storage.files import list_folder, read_bytes, read_many, size_of
from mmdata.storage.urls import is_url

_FETCHED_AT_ONCE = 1000


class OutputFiles(Protocol):
    """What can be asked of an output folder."""

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""
        ...


class LiveFiles:
    """Asks the folder each time."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""
        try:
            return read_bytes(os.path.join(self._folder, name))
        except FileNotFoundError:
            return None

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""
        try:
            return size_of(os.path.join(self._folder, name))
        except FileNotFoundError:
            return None


class ListedFiles:
    """The folder as it was when this was made; of sidecars (1 kB each) what was read is kept."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._sizes = {name: facts.size for name, facts in list_folder(folder).items()}
        self._sidecars = sorted(name for name in self._sizes if _is_sidecar(name))
        self._places = {name: place for place, name in enumerate(self._sidecars)}
        self._fetched: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        """A small file; of a sidecar the next thousand are fetched with it."""
        if name not in self._sizes:
            return None
        if name not in self._fetched:
            place = self._places.get(name)
            near = [name] if place is None else self._sidecars[place : place + _FETCHED_AT_ONCE]
            there = read_many(os.path.join(self._folder, one) for one in near)
            self._fetched |= {os.path.basename(path): data for path, data in there.items()}
        return self._fetched.get(name)

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there was none."""
        return self._sizes.get(name)


def _is_sidecar(name: str) -> bool:
    found = shard_of(name)
    return found is not None and found[1] == SIDECAR


def look_at(folder: str) -> OutputFiles:
    """A folder for questions about many of its shards."""
    return ListedFiles(folder) if is_url(folder) else LiveFiles(folder)
