"""Where each sample of a shard lies, in few bytes: for readers that jump about in many shards.

Interleaved shards with a samples table bring it along. Of other tars it is made from their headers,
once, and kept in a small file: beside the tar, or in a folder of the caller's where that cannot be
written to. Memory: 24 bytes a member (of a table 52) and the key.

An index also knows by what a member can be told from whatever else may stand at its place, so that
a reader by offset need not know the dialect of the tar: the table has the sha256 of the data, and
where the headers were read, their checksums are kept.
"""

import hashlib
import logging
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmdata.errors import BadInputError
from mmdata.shards.dialect import read_header
from mmdata.shards.reader import (
    name_told_twice,
    read_samples_table,
    refuse_damage,
    samples_path,
    split_name,
)
from mmdata.shards.structure import Member, walk
from mmdata.shards.tar import BLOCK_BYTES, is_our_header
from mmdata.storage.atomic import write_atomically
from mmdata.storage.files import Buffer, exists, facts_of, open_buffer
from mmdata.storage.urls import is_url

logger = logging.getLogger(__name__)
INDEX_SUFFIX = ".index"
_VERSION = 2
_SHA256_BYTES = 32
_CRC_BYTES = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """A member.

    Attributes:
        extension: of its name, in lower case.
        offset: byte offset of its data in the tar.
        size: bytes of its data.
        proof: by what it is known again: the sha256 of its data where a samples table told of it,
            the CRC-32 of its header where that did.
    """

    extension: str
    offset: int
    size: int
    proof: bytes


class ShardIndex:
    """The places of a shard's samples, by their ordinal in the tar.

    Args:
        keys: of the samples.
        starts: the first member of each sample, and behind the last the number of members.
        codes: of each member's extension, in `extensions`.
        offsets: of each member's data.
        sizes: of each member's data.
        proofs: of each member, one behind the other, all of one length.
        extensions: by code.
    """

    def __init__(
        self,
        keys: NDArray[np.bytes_],
        starts: NDArray[np.int64],
        codes: NDArray[np.uint16],
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        proofs: bytes,
        extensions: list[str],
    ) -> None:
        self._keys, self._starts, self._codes = keys, starts, codes
        self._offsets, self._sizes, self._extensions = offsets, sizes, extensions
        self._proofs, self._proof_bytes = proofs, len(proofs) // max(1, len(codes))

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, ordinal: int) -> str:
        """The key of a sample."""
        return bytes(self._keys[ordinal]).decode("utf-8", "surrogateescape")

    def entries(self, ordinal: int) -> list[Entry]:
        """The members of a sample, in the order of the tar."""
        first, last = int(self._starts[ordinal]), int(self._starts[ordinal + 1])
        width = self._proof_bytes
        return [
            Entry(
                self._extensions[int(self._codes[row])],
                int(self._offsets[row]),
                int(self._sizes[row]),
                self._proofs[row * width : (row + 1) * width],
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
            b"".join(entry.proof for entry in rows),
            extensions,
        )

    @classmethod
    def of_headers(cls, path: str, data: Buffer) -> "ShardIndex":
        """The index of a tar by its own headers (3 us a member).

        Args:
            path: of the tar, for messages.
            data: all of it.

        Raises:
            BadInputError: it is no tar, damaged so that samples would be lost, or two of its
                members have one name.
        """
        found: list[tuple[str, Entry]] = []
        members: list[Member] = []
        for member in walk(data, partial(refuse_damage, path)):
            key, extension = split_name(member.name)
            if key:
                header = data[member.offset - BLOCK_BYTES : member.offset]
                found.append((key, Entry(extension, member.offset, member.size, _crc(header))))
                members.append(member)
        if len({(key, entry.extension) for key, entry in found}) < len(found):
            raise BadInputError(f"{path}: {name_told_twice(members)}")
        return cls.of_members(found)

    @classmethod
    def of_table(cls, path: str) -> "ShardIndex":
        """The index of a shard of ours by the samples table beside it.

        Args:
            path: of the table.

        Raises:
            BadInputError: it is no samples table.
        """
        columns = read_samples_table(path, ["key", "offset", "size", "sha256"])
        number = len(columns["key"])
        try:
            digests = [bytes.fromhex(digest) for digest in columns["sha256"]]
        except (TypeError, ValueError) as error:
            raise BadInputError(f"{path}: not a samples table: sha256: {error}") from error
        if any(len(digest) != _SHA256_BYTES for digest in digests):
            raise BadInputError(f"{path}: not a samples table: a sha256 of another length")
        return cls(
            _byte_strings(columns["key"]),
            np.arange(number + 1, dtype=np.int64),
            np.zeros(number, dtype=np.uint16),
            np.array(columns["offset"], dtype=np.int64),
            np.array(columns["size"], dtype=np.int64),
            b"".join(digests),
            ["json"],
        )

    def to_bytes(self, size: int, version: str) -> bytes:
        """The index as the bytes of a file, which `of_bytes` reads.

        Args:
            size: bytes of the tar.
            version: of the tar, as of `FileFacts`: it changes when the file does.
        """
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
                proofs=self._proofs,
                extensions=self._extensions,
            )
        )

    @classmethod
    def of_bytes(cls, data: bytes, size: int, version: str) -> "ShardIndex | None":
        """The index that `to_bytes` wrote; None when it is of another tar, or no index.

        Args:
            data: of the file.
            size: bytes of the tar that is there now.
            version: of that tar, as of `FileFacts`.
        """
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
            saved.proofs,
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
    proofs: bytes
    extensions: list[str]


def _byte_strings(keys: Iterable[str]) -> NDArray[np.bytes_]:
    return np.array([key.encode("utf-8", "surrogateescape") for key in keys], dtype=np.bytes_)


def _crc(header: bytes) -> bytes:
    return zlib.crc32(header).to_bytes(_CRC_BYTES, "big")


def is_member(block: bytes, key: str, entry: Entry) -> bool:
    """Whether a header and the data behind it are the member that an index tells of.

    A samples table vouches for the data, and not for what the header says, which in shards of
    others is of any dialect. Where it is one of ours and says that name and size, that is enough;
    else it has to be a whole header of some kind, or every other reader would lose the sample, and
    the data is hashed (0.5 ms for 300 kB, or less).

    Args:
        block: 512 bytes of header, then the data.
        key: of the sample.
        entry: of the member.
    """
    header, size = block[:BLOCK_BYTES], len(block) - BLOCK_BYTES
    if size != entry.size:
        return False
    if len(entry.proof) != _SHA256_BYTES:
        return _crc(header) == entry.proof
    if is_our_header(header, f"{key}.{entry.extension}", size):
        return True
    is_whole = read_header(header).summed
    return is_whole and hashlib.sha256(memoryview(block)[BLOCK_BYTES:]).digest() == entry.proof


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
    """Whether a table is about the documents of the tar; that of a pairs layout is of pictures.

    A first name that is too long for its header is not told by it: then the headers are walked.
    """
    if not len(index):
        return True
    start = index.entries(0)[0].offset
    if start < BLOCK_BYTES:
        return False
    with open_buffer(path) as data:
        block = data[start - BLOCK_BYTES : start]
    if len(block) < BLOCK_BYTES:
        return False
    name = read_header(block).name.decode("utf-8", "surrogateescape")
    return split_name(name) == (index.key(0), "json")


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
