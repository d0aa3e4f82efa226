"""Single flipped bits in a conversion of 50 samples: which regions they hit, and what finds them.

* `make_flipped(folder)`: the conversion, its documents with texts of some length.
* `regions(tar)`: every byte of a tar by what it is: header, padding, end mark, image, elsewhere.
* `draw(...)`: positions and bits, spread over the regions, the same for the same seed.
* `flipped(path, offset, bit)`: a file with one bit changed, put right afterwards.
* `alone(path)`, `together(folder)`: the findings without and with what stands beside the tar.
"""

import contextlib
import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmdata.shards.structure import walk
from mmdata.validation.shard import ShardTask, check_shard
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from schemas.validation import Finding
from tests.shard_factory import Dataset, make_document

SAMPLES = 50
#: Regions in which every flip must be found without anything beside the tar.
PROMISED = ("header", "padding", "end mark", "image")
_BLOCK = 512
_IMAGE = re.compile(rb'"image_base64":"([^"]*)"')
_WORDS = [
    "the",
    "a",
    "of",
    "to",
    "and",
    "in",
    "is",
    "was",
    "for",
    "on",
    "with",
    "as",
    "by",
    "at",
    "from",
    "it",
    "that",
    "this",
    "page",
    "old",
    "new",
    "city",
]


@dataclass(frozen=True, slots=True)
class Region:
    """A run of bytes of one kind. `key` is of the sample that it belongs to, if it does to one."""

    kind: str
    start: int
    stop: int
    key: str


def make_flipped(folder: Path) -> Dataset:
    """50 documents in one shard; half as many bytes of text as of pictures, as on the web."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    documents = []
    for number in range(SAMPLES):
        document = make_document(number, images=1 + number % 3, sentences=5)
        document["text_list"] = [" ".join(rng.choices(_WORDS, k=12)) + "." for _ in range(5)]
        documents.append(document)
    dataset = Dataset(folder, [documents])
    dataset.write()
    return dataset


def regions(data: bytes) -> list[Region]:
    """What every byte of a tar of ours is."""
    found, end = [], 0
    for member in walk(data, _sound):
        key = member.name.removesuffix(".json")
        found.append(Region("header", member.offset - _BLOCK, member.offset, key))
        end, at = member.offset + member.size, member.offset
        for image in _IMAGE.finditer(data, member.offset, end):
            found.append(Region("elsewhere", at, image.start(1), key))
            found.append(Region("image", image.start(1), image.end(1), key))
            at = image.end(1)
        found.append(Region("elsewhere", at, end, key))
        padded = end + -end % _BLOCK
        if padded > end:
            found.append(Region("padding", end, padded, key))
        end = padded
    return [*found, Region("end mark", end, len(data), "")]


def _sound(fault: object) -> None:
    raise AssertionError(fault)


def draw(found: list[Region], number: int, seed: int) -> list[tuple[Region, int, int]]:
    """(region, offset, bit): as many of each kind, anywhere in it."""
    rng = random.Random(seed)
    kinds = sorted({region.kind for region in found})
    drawn = []
    for place in range(number):
        of_kind = [region for region in found if region.kind == kinds[place % len(kinds)]]
        (region,) = rng.choices(of_kind, [one.stop - one.start for one in of_kind])
        drawn.append((region, rng.randrange(region.start, region.stop), rng.randrange(8)))
    return drawn


@contextlib.contextmanager
def flipped(path: Path, offset: int, bit: int) -> Iterator[None]:
    """The file with one bit changed in place, until the end of the block."""
    file = os.open(path, os.O_RDWR)
    try:
        was = os.pread(file, 1, offset)
        os.pwrite(file, bytes([was[0] ^ 1 << bit]), offset)
        yield
        os.pwrite(file, was, offset)
    finally:
        os.close(file)


def alone(path: Path) -> list[Finding]:
    """Findings on a tar with nothing beside it."""
    return check_shard(
        ShardTask(path=str(path), level="content", max_findings=9, owed=False)
    ).findings


def together(folder: Path) -> list[Finding]:
    """Findings on a whole conversion."""
    spec = Validate(shards=(str(folder),), level="content", workers=0, max_findings=9)
    return validate(spec).findings


def is_located(finding: Finding, region: Region, offset: int) -> bool:
    """Whether a finding leads to the place: by the sample's key, or by a byte at or before it."""
    if region.key and finding.key.removesuffix(".json") == region.key:
        return True
    if not finding.path.startswith("@"):
        return False
    return region.start - _BLOCK <= int(finding.path[1:]) <= offset


def share_found_elsewhere(folder: Path, number: int, seed: int) -> tuple[int, int]:
    """(found, tried) of flips outside the promised regions, without anything beside the tar."""
    path = make_flipped(folder / "whole").path().rename(folder / "alone.tar")
    outside = [region for region in regions(path.read_bytes()) if region.kind == "elsewhere"]
    found = 0
    for _, offset, bit in draw(outside, number, seed):
        with flipped(path, offset, bit):
            found += bool(alone(path))
    return found, number
