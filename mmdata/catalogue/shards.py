"""The shards of a stream: found, counted, and what kind of samples they hold.

A specification is a folder, a glob, a brace range, a manifest.json, a list (.txt, a shard a line),
each on a disk or in a store, or `pipe:COMMAND` whose output is a tar. Counts come from the manifest
or the sidecar, where there is one, and else from an index of the tar's own headers, made once
(2.5 us a member, many tars in processes); of a remote tar without either, that means to fetch it.
A shard of ours without its sidecar is left over from a conversion that was stopped: it is left out,
and said so.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from mmdata.catalogue.counting import count_samples
from mmdata.errors import BadInputError, UserError
from mmdata.shards.naming import MANIFEST_NAME, PLAN_NAME, SIDECAR, TAR, shard_of
from mmdata.shards.reader import ShardReader
from mmdata.storage.files import FileFacts, list_folder, read_bytes
from mmdata.storage.paths import Expansion, expand_braces, expand_paths
from mmdata.storage.urls import is_url, is_web
from mmdata.training_view.records import RecordRule, likely_rule
from schemas.manifest import Manifest, Sidecar

logger = logging.getLogger(__name__)
_SHOWN = 3
_LISTS = (".txt", ".list")
PIPE = "pipe:"
_Record = TypeVar("_Record", Manifest, Sidecar)


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


#: Counts the samples of remote tars that nothing beside them describes.
CountRemote = Callable[[Sequence[Shard]], list[int]]


def is_remote(path: str) -> bool:
    """Whether a shard is fetched before it is read."""
    return is_url(path) or path.startswith(PIPE)


def find_shards(
    name: str,
    specs: Sequence[str],
    *,
    count_remote: CountRemote | None = None,
    index_folder: str | None = None,
) -> Catalogue:
    """The shards that a stream's specification stands for.

    Args:
        name: of the stream.
        specs: what it is made of.
        count_remote: fetches and counts what only that can tell; None: such shards are refused.
        index_folder: where indexes of foreign tars are kept when not beside them.

    Raises:
        UserError: there are none, or some do not exist.
        BadInputError: one cannot be read.
    """
    found = _expand(specs)
    if found.problems:
        shown = "; ".join(f"{path}: {problem}" for path, problem in found.problems[:_SHOWN])
        more = len(found.problems) - _SHOWN
        raise UserError(f"stream {name}: {shown}" + (f"; and {more} more" if more > 0 else ""))
    folders = {
        folder: _Folder(folder)
        for folder in dict.fromkeys(
            os.path.dirname(path) for path in found.files if not path.startswith(PIPE)
        )
    }
    described = [_describe(path, folders) for path in found.files]
    present = [shard for shard in described if shard is not None]
    shards = _count(present, count_remote, index_folder)
    if not any(shard.num_samples for shard in shards):
        raise UserError(f"stream {name}: {' '.join(specs) or 'no shards given'}: holds no samples")
    kinds = {folder.manifest.kind for folder in folders.values() if folder.manifest is not None}
    return Catalogue(tuple(shards), frozenset(kinds))


def resolve_rule(
    name: str,
    catalogue: Catalogue,
    first_members: Callable[[int], dict[str, memoryview]] | None = None,
) -> RecordRule:
    """`interleaved` or `caption`: by the manifests, else by the first sample.

    Args:
        name: of the stream.
        catalogue: its shards.
        first_members: reads the first sample of a shard, by its number; None: of local shards.

    Raises:
        UserError: neither tells.
    """
    rules: set[RecordRule] = {
        "caption" if kind == "laion" else "interleaved" for kind in catalogue.kinds
    }
    if len(rules) == 1:
        return rules.pop()
    first = next(n for n, shard in enumerate(catalogue.shards) if shard.num_samples)
    read = first_members or (lambda shard: _first_members(catalogue.shards[shard].path))
    rule = None if rules else likely_rule(read(first))
    if rule is None:
        raise UserError(
            f"stream {name}: {catalogue.shards[first].path}: its first sample does not tell "
            "whether the stream is interleaved or of captions; set its rule"
        )
    return rule


def _first_members(path: str) -> dict[str, memoryview]:
    with ShardReader(path) as reader:
        return reader.read(reader.keys[0]).members


def _expand(specs: Sequence[str]) -> Expansion:
    """The shards by name, in order."""
    files: list[str] = []
    problems: list[tuple[str, str]] = []
    for spec in specs:
        part = _expand_one(spec)
        files += part.files
        problems += part.problems
    return Expansion(files, problems)


def _expand_one(spec: str) -> Expansion:
    folder, base = os.path.split(spec)
    if spec.startswith(PIPE):
        return Expansion(expand_braces(spec), [])
    try:
        if base == MANIFEST_NAME:
            rows = _read(spec, Manifest).shards
            return expand_paths([os.path.join(folder, row.shard) for row in rows], (TAR,))
        if base.endswith(_LISTS) and not any(char in spec for char in "*?[{"):
            return _expand(_lines(spec))
        if is_url(spec) and "{" in spec and not any(char in spec for char in "*?["):
            return _expand_urls(expand_braces(spec))
    except (OSError, ValueError) as error:
        return Expansion([], [(spec, str(getattr(error, "strerror", None) or error))])
    return expand_paths([spec], (TAR,))


def _lines(path: str) -> list[str]:
    """The shards that a list names, a line each; relative ones stand beside the list."""
    lines = [line.strip() for line in read_bytes(path).decode("utf-8-sig").splitlines()]
    named = [line for line in lines if line and not line.startswith("#")]
    return [
        line if is_remote(line) else os.path.join(os.path.dirname(path), line) for line in named
    ]


def _expand_urls(urls: Sequence[str]) -> Expansion:
    """URLs of a range, looked up by one listing a folder where the store has listings."""
    if is_web(urls[0]):
        return expand_paths(urls, (TAR,))
    listed = {folder: list_folder(folder) for folder in {os.path.dirname(url) for url in urls}}
    there = [url for url in urls if os.path.basename(url) in listed[os.path.dirname(url)]]
    missing = set(urls).difference(there)
    return Expansion(there, [(url, "no such file") for url in urls if url in missing])


class _Folder:
    """What stands in a folder of shards, looked at once."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: dict[str, FileFacts] = {} if is_web(path) else list_folder(path or ".")
        self.manifest = self._manifest()
        rows = self.manifest.shards if self.manifest else []
        self.rows = {row.shard: row for row in rows}

    def _manifest(self) -> Manifest | None:
        """Ours; None where there is none, or another tool's."""
        path = os.path.join(self.path, MANIFEST_NAME)
        if is_web(path):
            try:
                data = read_bytes(path)
            except OSError:  # a web server without one; it lists nothing
                return None
        elif MANIFEST_NAME in self.files:
            data = read_bytes(path)
        else:
            return None
        return _decode(path, data, Manifest) if b'"format_version"' in data else None


def _describe(path: str, folders: dict[str, _Folder]) -> Shard | None:
    """What is known of a shard without opening it; a count of -1 where nothing tells."""
    if path.startswith(PIPE):
        return Shard(path, -1)
    folder, name = folders[os.path.dirname(path)], os.path.basename(path)
    facts = folder.files.get(name)
    row = folder.rows.get(name)
    if row is not None:
        return _checked(path, row.bytes, row.samples, row.sha256, facts)
    if shard_of(name):  # a name of ours; OpenFlamingo's script gives the same
        beside = name.removesuffix(TAR) + SIDECAR
        if beside in folder.files:
            sidecar = _read(os.path.join(folder.path, beside), Sidecar)
            documents = sidecar.tally.documents
            return _checked(path, sidecar.bytes, documents, sidecar.sha256, facts)
        if PLAN_NAME in folder.files:
            logger.warning("%s: no sidecar, so its conversion did not finish: left out", path)
            return None
    if not is_url(path) or facts is None:
        return Shard(path, -1)
    return Shard(path, -1, facts.size, version=facts.version)


def _count(
    shards: Sequence[Shard], count_remote: CountRemote | None, index_folder: str | None
) -> list[Shard]:
    """With the samples counted of those that nothing describes."""
    unknown = [shard for shard in shards if shard.num_samples < 0]
    local = [shard for shard in unknown if not shard.is_remote]
    remote = [shard for shard in unknown if shard.is_remote]
    counts: dict[str, int] = {}
    if local:
        paths = list(dict.fromkeys(shard.path for shard in local))
        counts.update(zip(paths, count_samples(paths, index_folder), strict=True))
    if remote:
        if count_remote is None:
            raise UserError(
                f"{remote[0].path}: nothing beside it says how many samples it holds, so it has to "
                "be fetched first; give --cache-dir"
            )
        sizes_there = count_remote(remote)
        counts.update(zip((shard.path for shard in remote), sizes_there, strict=True))
    return [
        shard
        if shard.num_samples >= 0
        else Shard(shard.path, counts[shard.path], shard.num_bytes, version=shard.version)
        for shard in shards
    ]


def _checked(
    path: str, num_bytes: int, num_samples: int, sha256: str, facts: FileFacts | None
) -> Shard:
    if facts is not None and facts.size != num_bytes:
        raise BadInputError(
            f"{path}: expected {num_bytes} bytes as its sidecar says, got {facts.size}; run the "
            "conversion again, or mmdata validate"
        )
    return Shard(path, num_samples, num_bytes, sha256)


def _read(path: str, record: type[_Record]) -> _Record:
    try:
        return _decode(path, read_bytes(path), record)
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror or error}") from error


def _decode(path: str, data: bytes, record: type[_Record]) -> _Record:
    try:
        return msgspec.json.decode(data, type=record)
    except msgspec.MsgspecError as error:
        raise BadInputError(f"{path}: {error}") from error


def _name(path: str) -> str:
    """A shard's file name, wherever it lies; the whole text of a shard that is a command."""
    return path if path.startswith(PIPE) else os.path.basename(path)
