"""What Megatron-Energon wants beside shards: `.tar.idx` for each, `.nv-meta` for all.

Written in the form of `energon prepare` 7.4 (https://github.com/NVIDIA/Megatron-Energon), so that
no run of it is needed: the index is 64-bit little-endian offsets of the samples' first headers and
of the end; `.info.json` counts samples, `split.yaml` puts all shards into `train`, `dataset.yaml`
names the class that hands samples over as they are. Not written: `index.sqlite`, which only joined
and auxiliary datasets ask for (`energon prepare` makes it). Shards without samples are left out,
since Energon takes one for damage.
"""

import os
import re
import struct
from collections.abc import Iterable, Mapping
from functools import partial

import msgspec

from mmdata.shards.dialect import DATALESS, EXTENDED, read_header
from mmdata.shards.naming import TAR, TAR_INDEX
from mmdata.shards.reader import refuse_damage
from mmdata.shards.structure import Member, walk
from mmdata.shards.tar import BLOCK_BYTES, padding
from mmdata.storage.atomic import write_atomically
from mmdata.storage.files import Buffer, exists, make_folder, open_buffer

META_FOLDER = ".nv-meta"
_INFO, _SPLIT, _DATASET = (
    os.path.join(META_FOLDER, name) for name in (".info.json", "split.yaml", "dataset.yaml")
)
#: What is written anew with a dataset; `dataset.yaml` may be somebody's own by then.
META_FILES = (_INFO, _SPLIT)
#: Version of `energon prepare` whose output this is.
PREPARED_AS = "7.4.1"

#: As Energon splits names; members that match `_META_NAME` are no part of samples.
_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
_META_NAME = re.compile(r"__[^/]*__($|/)")
_CRUDE = b"__module__: megatron.energon\n__class__: CrudeWebdataset\n"


def encode_offsets(offsets: Iterable[int]) -> bytes:
    """The bytes of a `.tar.idx`: where each sample begins, and where the last one ends."""
    values = list(offsets)
    return struct.pack(f"<{len(values)}Q", *values)


def sample_offsets(members: Iterable[tuple[Member, int]]) -> list[int]:
    """Where each sample begins and the last one ends.

    Args:
        members: each with the offset of its first header, extended ones included.
    """
    offsets: list[int] = []
    last, end = "", 0
    for member, start in members:
        end = member.offset + member.size + len(padding(member.size))
        name = _NAME.fullmatch(member.name)
        if name is None or _META_NAME.match(member.name):
            continue
        if name[1] != last:
            offsets.append(start)
            last = name[1]
    return [*offsets, end]


def write_tar_index(tar: str) -> int:
    """Write the index of a shard from its headers; returns the number of samples.

    Raises:
        BadInputError: the tar is damaged.
    """
    with open_buffer(tar) as data:
        offsets = sample_offsets(_with_starts(data, walk(data, partial(refuse_damage, tar))))
    write_atomically(tar.removesuffix(TAR) + TAR_INDEX, encode_offsets(offsets))
    return len(offsets) - 1


def _with_starts(data: Buffer, members: Iterable[Member]) -> Iterable[tuple[Member, int]]:
    """Members and where the first of their headers begins: a pax one stands before the plain."""
    end = 0
    for member in members:
        yield member, _first_header(data, end, member.offset - BLOCK_BYTES)
        end = member.offset + member.size + len(padding(member.size))


def _first_header(data: Buffer, position: int, plain: int) -> int:
    """The first of the extended headers that lead up to a plain one."""
    first = -1
    while position < plain:
        header = read_header(data[position : position + BLOCK_BYTES])
        extended = header.kind in EXTENDED
        first = (position if first < 0 else first) if extended else -1
        size = 0 if header.kind in DATALESS else max(header.size, 0)
        position += BLOCK_BYTES + size + len(padding(size))
    return plain if first < 0 else first


def write_meta(folder: str, counts: Mapping[str, int]) -> None:
    """Write `.nv-meta` beside indexed shards.

    Args:
        folder: of the shards.
        counts: samples of each, by file name.
    """
    held = {name: count for name, count in counts.items() if count}
    make_folder(os.path.join(folder, META_FOLDER))
    info = {"energon_version": PREPARED_AS, "shard_counts": held}
    splits = "split_parts:\n  train:\n" + "".join(f"  - {name}\n" for name in map(_quoted, held))
    if not exists(os.path.join(folder, _DATASET)):
        write_atomically(os.path.join(folder, _DATASET), _CRUDE)
    text = splits if held else "split_parts:\n  train: []\n"
    write_atomically(os.path.join(folder, _SPLIT), (text + "exclude: []\n").encode())
    encoded = msgspec.json.format(msgspec.json.encode(info), indent=2) + b"\n"
    write_atomically(os.path.join(folder, _INFO), encoded)


def _quoted(name: str) -> str:
    """A file name in YAML, whatever is in it; Energon expands braces in it."""
    return msgspec.json.encode(name).decode()
