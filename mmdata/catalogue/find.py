"""The shards that a command is told: folders, globs, ranges and files, in order."""

import os
from collections.abc import Sequence

import msgspec

from mmdata.errors import UserError
from mmdata.shards.naming import MANIFEST_NAME
from mmdata.storage.files import exists, read_bytes, real_path
from mmdata.storage.paths import expand_paths
from schemas.manifest import Manifest


def find_shards(specs: Sequence[str]) -> list[str]:
    """The tars that arguments stand for, each once, in order.

    Raises:
        UserError: at least one argument stands for nothing; all such are named.
    """
    expansion = expand_paths(specs, (".tar",))
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
