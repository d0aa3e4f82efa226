"""The shards of a stream: found, counted, and what kind of samples they hold.

Counts come from the manifest or the sidecar, where there is one, and else from the tar's own
headers (2.5 us a sample, once at start). A shard of ours without its sidecar is left over from a
conversion that was stopped: it is left out, and said so.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from mmdata.errors import BadInputError, UserError
from mmdata.shards.naming import MANIFEST_NAME, PLAN_NAME, SIDECAR, TAR, shard_of
from mmdata.shards.reader import ShardReader
from mmdata.storage.paths import expand_paths
from mmdata.usage.records import RecordRule, likely_rule
from schemas.manifest import Manifest, ManifestShard, Sidecar

logger = logging.getLogger(__name__)
_SHOWN = 3
_Record = TypeVar("_Record", Manifest, Sidecar)


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar and the number of its samples."""

    path: str
    num_samples: int


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The shards of a stream, in the order of their names as given.

    Attributes:
        shards: the shards.
        kinds: of the manifests beside them; empty for foreign ones.
    """

    shards: tuple[Shard, ...]
    kinds: frozenset[str]

    @property
    def num_samples(self) -> int:
        return sum(shard.num_samples for shard in self.shards)

    @property
    def identity(self) -> str:
        """Equal when names and sizes are: then a position means the same sample."""
        digest = hashlib.blake2b(digest_size=16)
        for shard in self.shards:
            digest.update(f"{Path(shard.path).name}\0{shard.num_samples}\n".encode())
        return digest.hexdigest()


def find_shards(name: str, specs: Sequence[str]) -> Catalogue:
    """The shards that a stream's specification stands for.

    Raises:
        UserError: there are none, or some do not exist.
        BadInputError: one cannot be read.
    """
    found = expand_paths(specs, (TAR,))
    if found.problems:
        shown = "; ".join(f"{path}: {problem}" for path, problem in found.problems[:_SHOWN])
        more = len(found.problems) - _SHOWN
        raise UserError(f"stream {name}: {shown}" + (f"; and {more} more" if more > 0 else ""))
    folders = {Path(path).parent for path in found.files}
    manifests = {folder: _manifest(folder) for folder in folders}
    listed = {
        folder / row.shard: row
        for folder, manifest in manifests.items()
        for row in (manifest.shards if manifest else [])
    }
    shards = []
    for path in found.files:
        num_samples = _num_samples(Path(path), listed.get(Path(path)))
        if num_samples is None:
            logger.warning("%s: no sidecar, so its conversion did not finish: left out", path)
        else:
            shards.append(Shard(path, num_samples))
    if not any(shard.num_samples for shard in shards):
        raise UserError(f"stream {name}: {' '.join(specs) or 'no shards given'}: holds no samples")
    kinds = {manifest.kind for manifest in manifests.values() if manifest is not None}
    return Catalogue(tuple(shards), frozenset(kinds))


def resolve_rule(name: str, catalogue: Catalogue) -> RecordRule:
    """`interleaved` or `caption`: by the manifests, else by the first sample.

    Raises:
        UserError: neither tells.
    """
    rules: set[RecordRule] = {
        "caption" if kind == "laion" else "interleaved" for kind in catalogue.kinds
    }
    if len(rules) == 1:
        return rules.pop()
    first = next(shard for shard in catalogue.shards if shard.num_samples)
    with ShardReader(first.path) as reader:
        rule = None if rules else likely_rule(reader.read(reader.keys[0]).members)
    if rule is None:
        raise UserError(
            f"stream {name}: {first.path}: its first sample does not tell whether the stream is "
            "interleaved or of captions; set its rule"
        )
    return rule


def _manifest(folder: Path) -> Manifest | None:
    """Ours; None where there is none, or another tool's."""
    path = folder / MANIFEST_NAME
    if not path.is_file() or b'"format_version"' not in path.read_bytes():
        return None
    return _read(path, Manifest)


def _num_samples(path: Path, listed: ManifestShard | None) -> int | None:
    """Samples of a shard; None for a shard of ours that was not committed."""
    if listed is not None:
        return _checked(path, listed.bytes, listed.samples)
    if shard_of(path.name):  # a name of ours; OpenFlamingo's script gives the same
        sidecar = path.with_name(path.name.removesuffix(TAR) + SIDECAR)
        if sidecar.is_file():
            described = _read(sidecar, Sidecar)
            return _checked(path, described.bytes, described.tally.documents)
        if (path.parent / PLAN_NAME).is_file():
            return None
    with ShardReader(path) as reader:
        return len(reader)


def _checked(path: Path, num_bytes: int, num_samples: int) -> int:
    size = path.stat().st_size
    if size != num_bytes:
        raise BadInputError(
            f"{path}: expected {num_bytes} bytes as its sidecar says, got {size}; run the "
            "conversion again, or mmdata validate"
        )
    return num_samples


def _read(path: Path, record: type[_Record]) -> _Record:
    try:
        return msgspec.json.decode(path.read_bytes(), type=record)
    except (OSError, msgspec.MsgspecError) as error:
        raise BadInputError(f"{path}: {error}") from error
