"""The command line in two snapshots: what `--help` shows, and what each option takes.

    cli_surface.txt   one line a command: its options as `mmdata COMMAND --help` shows them
    cli_values.txt    one line an option: its values or choices, and its default

Neither holds how a page is put in sections. `python -m tests.architecture.surface` (make
cli-surface) rewrites both; the difference is then part of the change that made it.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mmdata.cli.main import COMMANDS

SNAPSHOT = Path(__file__).parent / "cli_surface.txt"
VALUES = SNAPSHOT.with_name("cli_values.txt")
#: An option at the start of its line, behind the frame and a short form, and what turns it off.
_OPTION = re.compile(r"^[│|] (?:-\w, )?(--[a-z][a-z0-9-]*)(?:, (--no-[a-z0-9-]+))?", re.MULTILINE)
_COMMAND = re.compile(r"^[│|]?\s*•?\s*([a-z][a-z0-9]+(?:-[a-z0-9]+)*) {2,}\S", re.MULTILINE)

_PRINT = """
import contextlib, json, sys
from mmdata.cli.main import main
for call in json.loads(sys.argv[1]):
    print(end="\\0")
    with contextlib.suppress(SystemExit):
        main(call)
"""


@cache
def help_pages() -> dict[str, str]:
    """What `mmdata COMMAND --help` prints, and "" what `mmdata --help` does.

    One process prints all of them, and a zero byte before each.
    """
    calls = [["--help"], *([command, "--help"] for command in COMMANDS)]
    shown = subprocess.run(
        [sys.executable, "-c", _PRINT, json.dumps(calls)],
        env=os.environ | {"COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"},
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(zip(("", *COMMANDS), shown.stdout.split("\0")[1:], strict=True))


def commands() -> list[str]:
    """The subcommands that `mmdata --help` lists."""
    return sorted(set(_COMMAND.findall(help_pages()[""])))


def surface() -> str:
    """The whole command line: `command: --option --option …`."""
    lines = []
    for command in commands():
        shown = {name for names in _OPTION.findall(help_pages()[command]) for name in names}
        options = sorted(shown - {"", "--help"})
        lines.append(f"{command}: {' '.join(options)}\n")
    return "".join(lines)


def values() -> str:
    """What every option takes: `command --option VALUES = default`, in the order of the names."""
    lines = []
    for command, (kind, _) in COMMANDS.items():
        hints = get_type_hints(kind)
        for column in fields(kind):
            positional = column.metadata.get("positional")
            takes = _shown(hints[column.name])
            if column.metadata.get("repeat"):
                takes += " (repeated)"
            default = column.default
            if column.default_factory is not MISSING:
                default = column.default_factory()
            needed = "(required)" if default is MISSING else f"= {default!r}"
            option = column.name.upper() if positional else "--" + column.name.replace("_", "-")
            lines.append(f"{command} {option} {takes} {needed}\n")
    return "".join(sorted(lines))


def _shown(hint: Any) -> str:
    """A type in words: `{choice,choice}`, `int`, `str...`; `?` where there may be none."""
    parts = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return "|".join(_shown(one) for one in parts if one is not NoneType) + "?"
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, parts)) + "}"
    if get_origin(hint) is tuple:
        return ",".join("..." if one is Ellipsis else _shown(one) for one in parts)
    return str(hint.__name__)


if __name__ == "__main__":
    for path, text in ((SNAPSHOT, surface()), (VALUES, values())):
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(Path.cwd()))
