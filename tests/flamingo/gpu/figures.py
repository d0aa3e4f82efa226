"""What the cases did on the pretended GPU when it was last stored, and what has risen since.

    python -m tests.flamingo.gpu.figures            # writes figures.json anew; needs a C compiler
    python -m tests.flamingo.gpu.figures --rows     # finds the rows of the covering array as well

`figures.json` has `steps` and `tasks`, counted without a compiler, and `rows`, whole steps. Of each
case it holds how often the host reads, blocks and waits, which may not rise at all, and kernels and
bytes by operation, whose sums may rise by 5%; they hold for the versions of torch and transformers
that are stored beside them.
"""

import argparse
import importlib.metadata
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tests.flamingo.gpu import Watch, cases, has_shim, shim
from tests.flamingo.train.covering import Setting, covering_rows, settings

STORED = Path(__file__).with_name("figures.json")
RISE = 1.05
#: May not rise.
COUNTS = ("mixed", "reads", "blocking", "waits")
#: May rise a little, all operations together.
SUMS = ("kernels", "bytes")
_NAMED = 4


def of_watch(watch: Watch) -> dict[str, Any]:
    """A case as it is stored."""
    totals = watch.totals()
    return {
        **{name: totals[name] for name in COUNTS},
        "attention": dict(sorted(watch.attention.items())),
        **{name: dict(sorted(getattr(watch, name).items())) for name in SUMS},
    }


def risen(found: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
    """What has risen by more than 5%, each with the operations that rose most."""
    told = []
    for what in SUMS:
        now, before = Counter(found[what]), Counter(stored[what])
        if now.total() > RISE * before.total():
            more = (now - before).most_common(_NAMED)
            named = ", ".join(f"{name} +{number:,}" for name, number in more)
            told.append(f"{what}: {before.total():,} -> {now.total():,} ({named})")
    return told


def versions() -> dict[str, str]:
    """What decides which operations there are."""
    names = ("torch", "transformers", "open_clip_torch", "torchao", "peft")
    return {name: importlib.metadata.version(name) for name in names}


def stored() -> dict[str, Any]:
    """The whole file."""
    found: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return found


def count_without_compiler(place: cases.Place) -> dict[str, Any]:
    """The cases that need none."""
    steps = {name: cases.step(place, name, chosen) for name, chosen in cases.STEPS.items()}
    tasks = {name: task(place) for name, task in cases.TASKS.items()}
    return {
        "steps": {name: of_watch(watch) for name, watch in steps.items()},
        "tasks": {name: of_watch(watch) for name, watch in tasks.items()},
    }


def count_rows(place: cases.Place, rows: list[Setting]) -> dict[str, Any]:
    """Whole steps, in a process that has the shim."""
    found = {}
    for number, row in enumerate(rows):
        watch = cases.step(place, f"row{number}", row)
        found[cases.name_of(row)] = {"options": row, **of_watch(watch), "places": places(watch)}
    return found


def places(watch: Watch) -> dict[str, int]:
    """Where the host reads, blocks and waits, for a message."""
    return {
        f"{name}: {place}": number
        for name in COUNTS
        for place, number in getattr(watch, name).items()
    }


def covering() -> list[Setting]:
    """The rows of the covering array."""
    from tests.flamingo.train import test_levers as levers

    rows = covering_rows(levers.LEVERS, levers.is_taken, levers.is_compiled)
    return [settings(levers.LEVERS, row) for row in rows]


def rerun(folder: Path, *words: str) -> int:
    """This module in a process that has the shim; returns its exit code."""
    return shim.rerun(folder, [sys.executable, "-m", "tests.flamingo.gpu.figures", *words])


def _in_this_process(what: str, out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, cases.quiet():
        torch.set_num_threads(1)
        place = cases.make_place(Path(folder))
        if what == "rows":
            found = count_rows(place, [one["options"] for one in json.loads(out.read_text())])
        else:
            found = count_without_compiler(place)
    out.write_text(json.dumps(found), encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", action="store_true", help="find the rows anew (a minute)")
    parser.add_argument("--count", choices=("rows", "rest"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.count:
        _in_this_process(chosen.count, chosen.out)
        return
    if has_shim():
        raise SystemExit("run without the shim: the cases that need none are counted without it")
    rows = covering() if chosen.rows else [one["options"] for one in stored()["rows"].values()]
    found = {"versions": versions()}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        out.write_text(json.dumps([{"options": row} for row in rows]), encoding="utf-8")
        _in_this_process("rest", Path(folder) / "rest.json")
        found |= json.loads((Path(folder) / "rest.json").read_text())
        if rerun(Path(folder), "--count", "rows", "--out", str(out)):
            raise SystemExit("the rows could not be counted")
        found["rows"] = {
            name: {key: value for key, value in one.items() if key != "places"}
            for name, one in json.loads(out.read_text()).items()
        }
    STORED.write_text(_text(found), encoding="utf-8")


def _text(found: dict[str, Any]) -> str:
    """A line a case and kind of figure, so that a change can be read."""
    lines = []
    for section, entries in found.items():
        if section == "versions":
            lines.append(f' "versions": {json.dumps(entries)}')
            continue
        told = []
        for name, one in entries.items():
            kinds = [f"   {json.dumps(kind)}: {json.dumps(value)}" for kind, value in one.items()]
            told.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(kinds) + "\n  }")
        lines.append(f" {json.dumps(section)}: {{\n" + ",\n".join(told) + "\n }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    main()
