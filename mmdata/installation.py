"""How this mmdata was installed, and so how one of its extras is.

The name `mmdata` belongs to another project at the package index, so nobody is ever told to install
an extra by that name: the words are made from what pip wrote down (`direct_url.json`) of the
checkout, wheel or URL that this one came from.
"""

import json
import os
import shlex
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_NAME = "mmdata"
#: Beside the package in a checkout, and nowhere else.
_PROJECT, _CONSTRAINTS = "pyproject.toml", "constraints.txt"


def how_to_install(extra: str, *, code: Path | None = None) -> str:
    """What to do to get an extra: a command, or words where the source is not known.

    Args:
        extra: its name in `pyproject.toml`.
        code: the folder that holds the package; where this module lies if not given.
    """
    code = code or Path(__file__).resolve().parents[1]
    origin = _recorded_origin()
    checkout = _checkout_of(origin, code)
    if checkout is not None:
        return _from_checkout(checkout, extra, editable=checkout == code)
    url = str(origin.get("url", ""))
    if not url:
        return (
            f"install its extra '{extra}' from the checkout or wheel that this mmdata came from, "
            f"as in pip install '<path or wheel>[{extra}]' (it is not recorded, and the mmdata of "
            "the package index is another project)"
        )
    path = _local_path(url)
    if path is None:
        return f"pip install {_quoted(f'{_NAME}[{extra}] @ {_requirement_url(url, origin)}')}"
    if not path.exists():
        return (
            f"install its extra '{extra}' from the checkout or wheel that this mmdata came from, "
            f"as in pip install '<path or wheel>[{extra}]' ({path} is not there any more)"
        )
    return f"pip install {_quoted(f'{path}[{extra}]')}"


def _recorded_origin() -> dict[str, Any]:
    """What pip wrote down about where mmdata came from (PEP 610); empty for an index."""
    try:
        text = metadata.distribution(_NAME).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return {}
    try:
        origin = json.loads(text or "{}")
    except json.JSONDecodeError:
        return {}
    return origin if isinstance(origin, dict) else {}


def _checkout_of(origin: dict[str, Any], code: Path) -> Path | None:
    """The checkout to install from: that which runs, else that which was installed."""
    installed = _local_path(str(origin.get("url", ""))) if "dir_info" in origin else None
    # What runs may be another checkout than what is installed (PYTHONPATH), and then it counts.
    return next((path for path in (code, installed) if path and (path / _PROJECT).is_file()), None)


def _from_checkout(checkout: Path, extra: str, *, editable: bool) -> str:
    """A command for a checkout, with the versions that its tests ran with."""
    target = _quoted(f"{checkout}[{extra}]")
    constraints = checkout / _CONSTRAINTS
    known = f" -c {shlex.quote(str(constraints))}" if constraints.is_file() else ""
    return f"pip install {'-e ' if editable else ''}{target}{known}"


def _local_path(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(os.path.normpath(unquote(parts.path))) if parts.scheme == "file" else None


def _requirement_url(url: str, origin: dict[str, Any]) -> str:
    """The URL as a requirement names it: with the version control and the commit, if any."""
    vcs = origin.get("vcs_info")
    if isinstance(vcs, dict):
        url = f"{vcs.get('vcs', 'git')}+{url}@{vcs.get('commit_id', '')}".removesuffix("@")
    folder = origin.get("subdirectory")
    return f"{url}#subdirectory={folder}" if folder else url


def _quoted(text: str) -> str:
    """In quotes always, since shells take [] for a pattern."""
    quoted = shlex.quote(text)
    return quoted if quoted.startswith("'") else f"'{text}'"
