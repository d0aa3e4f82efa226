"""From what a person types (files, folders, globs, brace ranges, URLs) to a list of paths.

`{000..041}` is a range with its zeros kept, `{a,b}` a list, `*`, `?` and `[...]` a glob. A folder
stands for the files in it that the caller's pattern matches. Results are in the order given;
within a folder or a glob in natural order (2 before 10).
"""

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mmdata.errors import MissingExtraError, UserError
from mmdata.storage import files as stores
from mmdata.storage.urls import is_url, is_web

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAX_EXPANSION = 10_000_000
_DIGITS = "0123456789"


@dataclass(frozen=True, slots=True)
class Expansion:
    """What a list of path arguments stands for.

    Attributes:
        files: the paths that exist, in order.
        problems: (path or pattern, what is wrong with it), for those that do not.
    """

    files: list[str]
    problems: list[tuple[str, str]]


def natural_key(path: str) -> list[tuple[int, str]]:
    """A sort key under which runs of digits compare as numbers."""
    return [
        (int(part), part) if part[0] in _DIGITS else (-1, part)
        for part in re.split(r"([0-9]+)", path)
        if part
    ]


def expand_braces(pattern: str) -> list[str]:
    """Expand every `{first..last}` and `{a,b,c}` of a pattern, left to right, as a shell does.

    Raises:
        ValueError: a range runs backwards, or the whole comes to more than 10 million paths.
    """
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    body = match.group(1)
    spans = _RANGE.fullmatch(body)
    if spans:
        first, last = int(spans[1]), int(spans[2])
        if last < first or last - first >= _MAX_EXPANSION:
            raise ValueError(f"{pattern}: the range {{{body}}} is empty or too long")
        width = len(spans[1]) if spans[1].startswith("0") and len(spans[1]) > 1 else 0
        options: Iterable[str] = (f"{number:0{width}d}" for number in range(first, last + 1))
    elif "," in body:
        options = body.split(",")
    else:
        head = pattern[: match.end()]
        return [head + tail for tail in expand_braces(pattern[match.end() :])]
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [head + option + rest for option in options for rest in expand_braces(tail)]


def expand_paths(specs: Sequence[str], suffixes: tuple[str, ...]) -> Expansion:
    """Resolve path arguments to files.

    Args:
        specs: files, folders, globs and brace ranges.
        suffixes: endings (with the dot) of the files that a folder stands for.
    """
    files: list[str] = []
    problems: list[tuple[str, str]] = []
    for spec in specs:
        try:
            there = not is_url(spec) and os.path.exists(spec)
            candidates = [spec] if there else expand_braces(spec)
        except ValueError as error:
            problems.append((spec, str(error)))
            continue
        for path in candidates:
            found, problem = _resolve(path, suffixes)
            files.extend(found)
            if problem:
                problems.append((path, problem))
    unnamable = [path for path in files if not _is_text(path)]
    problems += [(_as_text(path), "its name is not UTF-8; rename it") for path in unnamable]
    return Expansion([path for path in files if _is_text(path)], problems)


def _is_text(path: str) -> bool:
    """Whether a name can stand in a plan or manifest, which are UTF-8."""
    return _as_text(path) == path


def _as_text(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def _resolve(path: str, suffixes: tuple[str, ...]) -> tuple[list[str], str]:
    """The files that one brace-free path stands for, or what is wrong with it."""
    if is_url(path):
        return _resolve_url(path, suffixes)
    if os.path.isdir(path):
        names = [n for n in os.listdir(path) if n.endswith(suffixes) and not n.startswith(".")]
        found = [os.path.join(path, name) for name in sorted(names, key=natural_key)]
        return found, "" if found else f"the folder holds no {' or '.join(suffixes)} file"
    if os.path.exists(path):
        return [path], ""
    if any(char in path for char in "*?["):
        found = sorted(glob.glob(path), key=natural_key)
        return found, "" if found else "no file matches"
    return [], "no such file"


def _resolve_url(url: str, suffixes: tuple[str, ...]) -> tuple[list[str], str]:
    """The files of a store that a URL stands for, or why it stands for none."""
    try:
        if any(char in url for char in "*?[") and not is_web(url):
            found = sorted(stores.glob(url), key=natural_key)
            return found, "" if found else "no file matches"
        if not stores.exists(url):
            return [], "no such file"
        if not stores.is_folder(url):
            return [url], ""
        names = [n for n in stores.list_folder(url) if n.endswith(suffixes) and n[0] != "."]
    except MissingExtraError:
        raise
    except (OSError, UserError) as error:
        return [], str(error).removeprefix(f"{url}: ")
    found = [os.path.join(url, name) for name in sorted(names, key=natural_key)]
    return found, "" if found else f"nothing there ends in {' or '.join(suffixes)}"
