"""Where each sample of a shard lies, in few bytes: for readers that jump about in many shards.

Our interleaved shards bring it along (the samples table). Of other tars it is made from their
headers, once, and kept in a small file: beside the tar, or in a folder of the caller's where that
cannot be written to. Memory: 20 bytes a member and the key.
"""

import hashlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmdata.errors import BadInputError
from mmdata.shards.reader import (
    HARMLESS_DAMAGE,
    read_samples_table,
    samples_path,
    split_name,
)
from mmdata.shards.structure import Fault, walk
from mmdata.shards.tar import BLOCK_BYTES, member_header
from mmdata.storage.atomic import write_atomically
from mmdata.storage.files import Buffer, exists, facts_of, open_buffer
from mmdata.storage.urls import is_url

logger = logging.getLogger(__name__)
INDEX_SUFFIX = ".index"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A member: its extension, and the place of its data in the tar."""

    extension: str
    offset: int
    size: int


class ShardIndex:
    """The places of a shard's samples, by their ordinal in the tar.

    Args:
        keys: of the samples.
        starts: the first member of each sample, and behind the last the number of members.
        codes: of each member's extension, in `extensions`.
        offsets: of each member's data.
        sizes: of each member's data.
        extensions: by code.
    """

    def __init__(
        self,
        keys: NDArray[np.bytes_],
        starts: NDArray[np.int64],
        codes: NDArray[np.uint16],
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        extensions: list[str],
    ) -> None:
        self._keys, self._starts, self._codes = keys, starts, codes
        self._offsets, self._sizes, self._extensions = offsets, sizes, extensions

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, ordinal: int) -> str:
        """Of a sample."""
        return bytes(self._keys[ordinal]).decode("utf-8", "surrogateescape")

    def entries(self, ordinal: int) -> list[Entry]:
        """The members of a sample, in the order of the tar."""
        first, last = int(self._starts[ordinal]), int(self._starts[ordinal + 1])
        return [
            Entry(
                self._extensions[int(self._codes[row])],
                int(self._offsets[row]),
                int(self._sizes[row]),
            )
            for row in range(first, last)
        ]

    @classmethod
    def of_members(cls, members: Iterable[tuple[str, Entry]]) -> "ShardIndex":
        """From (key, member) in the order of the tar; members of one sample need not be together.

        Their order within a sample is the tar's.
        """
        by_key: dict[str, list[Entry]] = {}
        for key, entry in members:
            by_key.setdefault(key, []).append(entry)
        rows = [entry for entries in by_key.values() for entry in entries]
        extensions = list(dict.fromkeys(entry.extension for entry in rows))
        code = {name: number for number, name in enumerate(extensions)}
        return cls(
            _byte_strings(by_key),
            np.cumsum([0, *(len(entries) for entries in by_key.values())], dtype=np.int64),
            np.array([code[entry.extension] for entry in rows], dtype=np.uint16),
            np.array([entry.offset for entry in rows], dtype=np.int64),
            np.array([entry.size for entry in rows], dtype=np.int64),
            extensions,
        )

    @classmethod
    def of_headers(cls, path: str, data: Buffer) -> "ShardIndex":
        """From a tar's own headers (2.5 us a member).

        Raises:
            BadInputError: it is no tar, or damaged so that samples would be lost.
        """

        def refuse(fault: Fault) -> None:
            if fault.damage not in HARMLESS_DAMAGE:
                raise BadInputError(
                    f"{path}: damaged at byte {fault.offset}: expected {fault.expected}, got "
                    f"{fault.got}; mmdata validate {path} says more"
                )

        named = ((split_name(member.name), member) for member in walk(data, refuse))
        return cls.of_members(
            (key, Entry(extension, member.offset, member.size))
            for (key, extension), member in named
            if key
        )

    @classmethod
    def of_table(cls, path: str) -> "ShardIndex":
        """From the samples table that stands beside a shard of ours."""
        columns = read_samples_table(path, ["key", "offset", "size"])
        number = len(columns["key"])
        return cls(
            _byte_strings(columns["key"]),
            np.arange(number + 1, dtype=np.int64),
            np.zeros(number, dtype=np.uint16),
            np.array(columns["offset"], dtype=np.int64),
            np.array(columns["size"], dtype=np.int64),
            ["json"],
        )

    def to_bytes(self, size: int, version: str) -> bytes:
        """As a file, for the tar of this size and version."""
        return msgspec.msgpack.encode(
            _Saved(
                format=_VERSION,
                tar_bytes=size,
                tar_version=version,
                keys=[bytes(key) for key in self._keys],
                starts=self._starts.tobytes(),
                codes=self._codes.tobytes(),
                offsets=self._offsets.tobytes(),
                sizes=self._sizes.tobytes(),
                extensions=self._extensions,
            )
        )

    @classmethod
    def of_bytes(cls, data: bytes, size: int, version: str) -> "ShardIndex | None":
        """From a file; None when it is of another tar, or none of ours."""
        try:
            saved = msgspec.msgpack.decode(data, type=_Saved)
        except msgspec.MsgspecError:
            return None
        if (saved.format, saved.tar_bytes, saved.tar_version) != (_VERSION, size, version):
            return None
        return cls(
            np.array(saved.keys, dtype=np.bytes_),
            np.frombuffer(saved.starts, dtype=np.int64),
            np.frombuffer(saved.codes, dtype=np.uint16),
            np.frombuffer(saved.offsets, dtype=np.int64),
            np.frombuffer(saved.sizes, dtype=np.int64),
            saved.extensions,
        )


class _Saved(msgspec.Struct):
    format: int
    tar_bytes: int
    tar_version: str
    keys: list[bytes]
    starts: bytes
    codes: bytes
    offsets: bytes
    sizes: bytes
    extensions: list[str]


def _byte_strings(keys: Iterable[str]) -> NDArray[np.bytes_]:
    return np.array([key.encode("utf-8", "surrogateescape") for key in keys], dtype=np.bytes_)


def is_member_at(data: Buffer, key: str, entry: Entry) -> bool:
    """Whether a member of ours has its data there."""
    if not BLOCK_BYTES <= entry.offset <= len(data) - entry.size:
        return False
    try:
        header = member_header(f"{key}.{entry.extension}", entry.size)
    except ValueError:
        return False
    return data[entry.offset - BLOCK_BYTES : entry.offset] == header


def index_shard(path: str, *, folder: str | None = None) -> ShardIndex:
    """The index of a tar on this machine, from where it is quickest to have.

    Args:
        path: of the tar.
        folder: where the index of a foreign tar is kept when not beside it.

    Raises:
        BadInputError: it is no tar, or damaged.
        OSError: it cannot be read.
    """
    table = samples_path(path)
    if exists(table):
        index = ShardIndex.of_table(table)
        if _fits(path, index):
            return index
    facts = facts_of(path)
    places = _places(path, folder)
    for place in places:
        try:
            with open(place, "rb") as file:
                found = ShardIndex.of_bytes(file.read(), facts.size, facts.version)
        except OSError:
            continue  # not there, or not readable: made below
        if found is not None:
            return found
    with open_buffer(path) as data:
        index = ShardIndex.of_headers(path, data)
    _save(index.to_bytes(facts.size, facts.version), places)
    return index


def _fits(path: str, index: ShardIndex) -> bool:
    """Whether a table describes the tar's members; that of a pairs layout does not."""
    if not len(index):
        return True
    with open_buffer(path) as data:
        return is_member_at(data, index.key(0), index.entries(0)[0])


def _places(path: str, folder: str | None) -> list[str]:
    """Where an index of a foreign tar may stand, the best first."""
    parent, name = os.path.split(path)
    places = [] if is_url(path) else [os.path.join(parent, f".{name}{INDEX_SUFFIX}")]
    if folder is not None:
        digest = hashlib.blake2b(os.path.abspath(path).encode(), digest_size=16).hexdigest()
        places.append(os.path.join(folder, digest + INDEX_SUFFIX))
    return places


def _save(data: bytes, places: list[str]) -> None:
    """Keep an index at the first place that can be written to; without one it is made anew."""
    for place in places:
        try:
            os.makedirs(os.path.dirname(place) or ".", exist_ok=True)
            write_atomically(place, data)
        except OSError as error:
            logger.debug("%s: the index is not kept there: %s", place, error)
        else:
            return
