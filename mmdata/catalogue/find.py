"""Which shards there are: what a command or a stream of training is told, as paths in order.

Commands take folders, globs, brace ranges and files. A stream takes a manifest.json, a list (.txt,
a shard a line) and `pipe:COMMAND`, whose output is a tar, as well.
"""

import os
from collections.abc import Sequence

import msgspec

from mmdata.catalogue.beside import decode
from mmdata.errors import UserError
from mmdata.shards.naming import MANIFEST_NAME, TAR
from mmdata.storage.files import exists, list_folder, read_bytes, real_path
from mmdata.storage.paths import Expansion, expand_braces, expand_paths
from mmdata.storage.urls import is_url, is_web
from schemas.manifest import Manifest

PIPE = "pipe:"
_LISTS = (".txt", ".list")


def is_remote(path: str) -> bool:
    """Whether a shard is fetched before it is read."""
    return is_url(path) or path.startswith(PIPE)


def find_shards(specs: Sequence[str]) -> list[str]:
    """The tars that arguments stand for, each once, in order.

    Raises:
        UserError: at least one argument stands for nothing; all such are named.
    """
    expansion = expand_paths(specs, (TAR,))
    problems = [problem for problem in expansion.problems if not is_empty_dataset(problem[0])]
    if problems:
        named = "; ".join(f"{path}: {problem}" for path, problem in problems[:20])
        more = len(problems) - 20
        raise UserError(named + (f"; and {more} more" if more > 0 else ""))
    if not expansion.files and not expansion.problems:
        raise UserError("no shards given: name .tar files, folders, globs or {000..041} ranges")
    unique: dict[str, str] = {}
    for path in expansion.files:
        unique.setdefault(real_path(path), path)
    return list(unique.values())


def is_empty_dataset(folder: str) -> bool:
    """Whether a folder has a manifest that says that there is no shard: of inputs without records.

    What cannot be read as a manifest is none.
    """
    path = os.path.join(folder, MANIFEST_NAME)
    try:
        return exists(path) and not msgspec.json.decode(read_bytes(path), type=Manifest).shards
    except msgspec.DecodeError:
        return False


def expand_stream(specs: Sequence[str]) -> Expansion:
    """The shards that a stream's specification stands for, in order, and what is wrong with it.

    Raises:
        BadInputError: a manifest that is named cannot be read as one.
    """
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
            rows = decode(spec, read_bytes(spec), Manifest).shards
            return expand_paths([os.path.join(folder, row.shard) for row in rows], (TAR,))
        if base.endswith(_LISTS) and not any(char in spec for char in "*?[{"):
            return expand_stream(_lines(spec))
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
