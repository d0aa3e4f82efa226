"""Make the golden lists anew: `python -m tests.golden.regenerate [bytes] [curve]`, both if none.

Right when a change was meant to change what the commands write or how a training goes (say so in
CHANGELOG: results of before and after then differ), or when versions moved and the lists were green
at the commit before, on the old versions. Never to get a failing test green: the difference is part
of the change that made it, and is read before it is committed.

Curves of other versions and CPUs stay as they are. A change that is meant to change curves removes
them: they hold what is no longer so.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.golden import sample_runs, training


def regenerate_bytes(top: Path) -> dict[str, Any]:
    """The whole of bytes.json, from runs of all groups below a new folder."""
    commands = {}
    for group in sample_runs.GROUPS:
        sample_runs.prepare(top / group)
        with sample_runs.one_thread():
            commands[group] = sample_runs.run(top / group, group)
    return {
        "codecs": sample_runs.codecs(),
        "arithmetic": sample_runs.arithmetic(top),
        "commands": commands,
    }


def regenerate_curve(top: Path) -> dict[str, Any]:
    """The whole of curve.json, with the curves of this machine in place of older ones of it."""
    training.make_world(top / "world")
    runs = {name: training.train(top / "world", name) for name in training.RUNS}
    here = training.key()
    old = json.loads(training.STORED.read_text()) if training.STORED.exists() else {"curves": []}
    kept = [one for one in old["curves"] if one["key"] != here]
    new = {"key": here, "runs": {name: training.curve(run) for name, run in runs.items()}}
    return {
        "left_behind": {name: training.left_behind(run) for name, run in runs.items()},
        "curves": [*kept, new],
    }


def main(chosen: list[str]) -> None:
    """Write the files that are chosen, or all."""
    made = {
        "bytes": (sample_runs.STORED, regenerate_bytes),
        "curve": (training.STORED, regenerate_curve),
    }
    for name in chosen or made:
        path, regenerate = made[name]
        with tempfile.TemporaryDirectory() as top:
            found = regenerate(Path(top).resolve())
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
