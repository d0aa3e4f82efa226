"""The options of every command as `mmdata COMMAND --help` shows them, one line a command.

`python -m tests.architecture.surface` (make cli-surface) rewrites the snapshot beside this file;
the difference is then part of the change that made it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

SNAPSHOT = Path(__file__).parent / "cli_surface.txt"
#: An option at the start of its line, behind the frame and a short form, and what turns it off.
_OPTION = re.compile(
    r"^[│|]?\s*(?:-\w, )?(--[a-z][a-z0-9-]*)(?:, (--no-[a-z0-9-]+))?", re.MULTILINE
)
_COMMAND = re.compile(r"^[│|]?\s*•?\s*([a-z][a-z0-9]+(?:-[a-z0-9]+)*) {2,}\S", re.MULTILINE)


def help_of(*command: str) -> str:
    """What `mmdata COMMAND --help` prints on a wide screen without colours."""
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    shown = subprocess.run(
        [sys.executable, "-m", "mmdata.cli", *command, "--help"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return shown.stdout


def commands() -> list[str]:
    """The subcommands that `mmdata --help` lists."""
    return sorted(set(_COMMAND.findall(help_of())))


def surface() -> str:
    """The whole command line: `command: --option --option …`."""
    lines = []
    for command in commands():
        shown = {name for names in _OPTION.findall(help_of(command)) for name in names}
        options = sorted(shown - {"", "--help"})
        lines.append(f"{command}: {' '.join(options)}\n")
    return "".join(lines)


if __name__ == "__main__":
    SNAPSHOT.write_text(surface(), encoding="utf-8")
    print(SNAPSHOT.relative_to(Path.cwd()))
