"""Make the golden list anew: `python -m tests.golden.regenerate`.

Right when a change was meant to change what the commands write (say so in
CHANGELOG: shards of before and after then differ), or when versions of codecs moved and
the list was green at the commit before, on the old versions. Never to get a failing test green:
the difference is part of the change that made it, and is read before it is committed.
"""

import json
import tempfile
from pathlib import Path

from tests.golden import sample_runs


def regenerate_bytes() -> None:
    """Write bytes.json from runs of all groups."""
    commands = {}
    with tempfile.TemporaryDirectory() as top:
        for group in sample_runs.GROUPS:
            folder = Path(top, group).resolve()
            sample_runs.prepare(folder)
            with sample_runs.one_thread():
                commands[group] = sample_runs.run(folder, group)
        found = {
            "codecs": sample_runs.codecs(),
            "arithmetic": sample_runs.arithmetic(Path(top)),
            "commands": commands,
        }
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    sample_runs.STORED.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    regenerate_bytes()
