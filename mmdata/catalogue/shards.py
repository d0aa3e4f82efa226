"""What shards hold: their samples, their sizes, and by which rule training reads them.

Counts come from the manifest or the sidecar, where there is one, and else from an index of the
tar's own headers, made once (2.5 us a member, many tars in processes); of a remote tar without
either, that means to fetch it. A shard of ours without its sidecar is left over from a conversion
that was stopped: it is left out, and said so.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mmdata.catalogue.beside import ShardFolder, rule_of_conversion
from mmdata.catalogue.counting import count_samples
from mmdata.catalogue.find import PIPE, expand_stream, is_remote
from mmdata.errors import BadInputError, UserError
from mmdata.shards.naming import shard_of
from mmdata.shards.reader import ShardReader
from mmdata.storage.urls import is_url
from mmdata.training_view.records import RecordRule, likely_rule

logger = logging.getLogger(__name__)
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar and the number of its samples.

    Attributes:
        path: of the tar, a URL, or a `pipe:` command.
        num_samples: in it.
        num_bytes: as its manifest, sidecar or store says; None for foreign ones on this machine.
        sha256: as its manifest or sidecar says.
        version: of a remote one, as its store says.
    """

    path: str
    num_samples: int
    num_bytes: int | None = None
    sha256: str | None = None
    version: str = ""

    @property
    def is_remote(self) -> bool:
        return is_remote(self.path)


#: Counts the samples of shards of which nothing beside them tells.
Count = Callable[[Sequence[Shard]], list[int]]
#: Reads the members of a shard's first sample; the shard is named by its number in the catalogue.
FirstMembers = Callable[[int], Mapping[str, memoryview]]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Shards in the order in which they were given.

    Attributes:
        shards: the shards.
        kinds: of the manifests beside them; empty for foreign ones.
        rules: by which training reads the samples of the conversions that these are of.
        left_out: shards that their conversion did not finish, by path.
        is_indexed: some were made by others, and only indexed here.
    """

    shards: tuple[Shard, ...]
    kinds: frozenset[str]
    rules: frozenset[RecordRule]
    left_out: tuple[str, ...] = ()
    is_indexed: bool = False

    @property
    def num_samples(self) -> int:
        return sum(shard.num_samples for shard in self.shards)

    @property
    def remote(self) -> list[Shard]:
        """Shards that are fetched before they are read."""
        return [shard for shard in self.shards if shard.is_remote]

    @property
    def identity(self) -> str:
        """Equal when names and sizes are: then a position means the same sample."""
        digest = hashlib.blake2b(digest_size=16)
        for shard in self.shards:
            digest.update(f"{_name(shard.path)}\0{shard.num_samples}\n".encode())
        return digest.hexdigest()

    @property
    def first(self) -> Shard | None:
        """The first shard that holds a sample."""
        return next((shard for shard in self.shards if shard.num_samples), None)

    def rule(self, first_members: FirstMembers | None = None) -> RecordRule | None:
        """By which rule the samples are read: by the manifests, else by the first sample.

        Args:
            first_members: reads the first sample of a shard; None: where it lies.

        Returns:
            None where neither tells, or the manifests disagree.
        """
        if self.rules or self.first is None:
            return next(iter(self.rules)) if len(self.rules) == 1 else None
        read = first_members or (lambda place: _first_members(self.shards[place].path))
        return likely_rule(read(self.shards.index(self.first)))


def catalogue_stream(
    name: str,
    specs: Sequence[str],
    *,
    count_remote: Count | None = None,
    index_folder: str | None = None,
) -> Catalogue:
    """The shards that a stream's specification stands for, fit to be read.

    Args:
        name: of the stream.
        specs: what it is made of.
        count_remote: fetches and counts what only that can tell; None: such shards are refused.
        index_folder: where indexes of foreign tars are kept when not beside them.

    Raises:
        UserError: there are none, or some do not exist.
        BadInputError: one cannot be read, or has another size than is told beside it.
    """

    def count(shards: Sequence[Shard]) -> list[int]:
        local = list(dict.fromkeys(shard.path for shard in shards if not shard.is_remote))
        remote = [shard for shard in shards if shard.is_remote]
        counts = dict(zip(local, count_samples(local, index_folder), strict=True))
        if remote and count_remote is None:
            raise UserError(
                f"{remote[0].path}: nothing beside it says how many samples it holds, so it has to "
                "be fetched first; give --cache-dir"
            )
        if remote and count_remote is not None:
            counts |= zip((shard.path for shard in remote), count_remote(remote), strict=True)
        return [counts[shard.path] for shard in shards]

    found = expand_stream(specs)
    if found.problems:
        shown = "; ".join(f"{path}: {problem}" for path, problem in found.problems[:_SHOWN])
        more = len(found.problems) - _SHOWN
        raise UserError(f"stream {name}: {shown}" + (f"; and {more} more" if more > 0 else ""))
    catalogue = catalogue_shards(found.files, count, is_checked=True)
    for path in catalogue.left_out:
        logger.warning("%s: no sidecar, so its conversion did not finish: left out", path)
    if not catalogue.num_samples:
        raise UserError(f"stream {name}: {' '.join(specs) or 'no shards given'}: holds no samples")
    return catalogue


def catalogue_shards(
    paths: Sequence[str], count: Count | None = None, *, is_checked: bool = False
) -> Catalogue:
    """What is known of shards by what stands beside them; the others' samples are counted.

    Args:
        paths: of shards that exist, in order.
        count: counts samples where nothing tells; None: by the headers, and nothing is kept.
        is_checked: they are to be read, so that sidecars that cannot be right are refused.

    Raises:
        BadInputError: a manifest, a sidecar or a shard that nothing tells of cannot be read.
    """
    parents = dict.fromkeys(os.path.dirname(path) for path in paths if not path.startswith(PIPE))
    folders = {parent: ShardFolder(parent) for parent in parents}
    shards: list[Shard] = []
    left_out: list[str] = []
    is_indexed = False
    for path in paths:
        folder, name = folders.get(os.path.dirname(path)), os.path.basename(path)
        if path.startswith(PIPE) or folder is None:
            shards.append(Shard(path, -1))
            continue
        facts, told = folder.files.get(name), folder.tell(name, is_checked=is_checked)
        if told is not None:
            if is_checked and facts is not None and facts.size != told.num_bytes:
                raise BadInputError(
                    f"{path}: expected {told.num_bytes} bytes as its sidecar says, got "
                    f"{facts.size}; run the conversion again, or mmdata validate"
                )
            shards.append(Shard(path, told.num_samples, told.num_bytes, told.sha256))
            is_indexed = is_indexed or told.is_indexed
        elif folder.has_plan and shard_of(name):  # OpenFlamingo's script gives the same names
            left_out.append(path)
        elif is_url(path) and facts is not None:
            shards.append(Shard(path, -1, facts.size, version=facts.version))
        else:
            shards.append(Shard(path, -1))
    manifests = [folder.manifest for folder in folders.values() if folder.manifest is not None]
    return Catalogue(
        tuple(_counted(shards, count or _count_headers)),
        frozenset(manifest.kind for manifest in manifests),
        frozenset(rule_of_conversion(manifest.kind, manifest.layout) for manifest in manifests),
        tuple(left_out),
        is_indexed,
    )


def rule_by_manifests(specs: Sequence[str]) -> RecordRule | None:
    """By which rule the shards of a stream are read, as the manifests beside them say.

    Args:
        specs: what the stream is made of, which need not be there yet.

    Returns:
        None where no manifest is at hand (none of a store is fetched), or they disagree.
    """
    if any(map(is_remote, specs)):
        return None
    try:
        parents = dict.fromkeys(os.path.dirname(path) for path in expand_stream(specs).files)
        manifests = [ShardFolder(parent).manifest for parent in parents if not is_remote(parent)]
    except BadInputError:
        return None  # the run that reads it says what is wrong
    rules = {rule_of_conversion(one.kind, one.layout) for one in manifests if one is not None}
    return rules.pop() if len(rules) == 1 else None


def _counted(shards: list[Shard], count: Count) -> list[Shard]:
    """The shards, with the samples counted of those that nothing describes."""
    unknown = [shard for shard in shards if shard.num_samples < 0]
    counts = iter(count(unknown) if unknown else ())
    return [
        replace(one, num_samples=next(counts)) if one.num_samples < 0 else one for one in shards
    ]


def _count_headers(shards: Sequence[Shard]) -> list[int]:
    counts = []
    for shard in shards:
        with ShardReader(shard.path) as reader:
            counts.append(len(reader))
    return counts


def _first_members(path: str) -> Mapping[str, memoryview]:
    with ShardReader(path) as reader:
        return reader.read(reader.keys[0]).members


def _name(path: str) -> str:
    """The file name of a shard wherever it lies; the whole text of a command."""
    return path if path.startswith(PIPE) else os.path.basename(path)
