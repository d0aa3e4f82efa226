"""The first ten minutes on a GPU: whether all that was written without one holds there.

    python -m benchmarks.gpu_first [--pretend] [--only WORDS] [--folder .bench]

One line a check, as they come: passed, failed with what is wrong, or skipped with why. No failure
stops the others, nor does a check that hangs or takes its process with it. At the end a page
(`gpu_first/report.html`, and the same as text and JSON) has all of them; the exit code is 1 where a
check failed. What the checks print, with tracebacks, is in `gpu_first/log.txt`.

Checked are: torch's GPU and NVML's are one; a step waits for the device once; tiny runs with the
tests' covering array of levers have the CPU's losses; a run resumes; estimates of memory are within
10%; the 3B shape plain, packed and compiled against the padded loop; the wait for data.

`--pretend` runs it on the project's pretended GPU (`tests/flamingo/gpu`), tiny, in a few minutes on
a CPU; what needs a GPU's time or memory is skipped then.
"""

import argparse
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from unittest import mock

from benchmarks.checks import START_SECONDS, Check, Row, Verdict, run_checks
from benchmarks.gates import Gate, print_gates
from benchmarks.gpu_place import Place
from mmdata.html.markup import element
from mmdata.html.shell import page
from mmdata.html.table import table
from mmdata.report.sections import section, tile
from mmdata.storage.atomic import write_atomically

_KINDS: dict[Verdict, str] = {"passed": "good", "failed": "bad", "skipped": ""}


def first_checks(
    place: Place,
    checks_of: Callable[[Place], Sequence[Check]],
    start_seconds: float = START_SECONDS,
) -> list[Row]:
    """Make all checks and write the report anew after each, so that there is always one."""
    folder = Path(place.folder)
    log = folder / "log.txt"
    log.unlink(missing_ok=True)
    rows: list[Row] = []

    def tell(row: Row) -> None:
        print(row.line(), flush=True)
        rows.append(row)
        write_report(place, rows)

    return run_checks(checks_of, place, log=log, tell=tell, start_seconds=start_seconds)


def write_report(place: Place, rows: Sequence[Row]) -> None:
    """The page, the text and the JSON of what is known so far."""
    folder = Path(place.folder)
    text = "".join(f"{line}\n" for line in [summary(place, rows), *(row.line() for row in rows)])
    (folder / "report.txt").write_text(text, encoding="utf-8")
    (folder / "report.json").write_text(
        json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8"
    )
    write_atomically(str(folder / "report.html"), render(place, rows))


def summary(place: Place, rows: Sequence[Row]) -> str:
    """How many came to what, in a line."""
    number = Counter(row.verdict for row in rows)
    told = ", ".join(f"{number[verdict]} {verdict}" for verdict in _KINDS)
    where = "the pretended GPU" if place.pretend else "a GPU"
    return (
        f"first checks on {where}: {told}, in {sum(row.seconds for row in rows) / 60:.1f} minutes"
    )


def render(place: Place, rows: Sequence[Row]) -> bytes:
    """The page, as UTF-8."""
    number = Counter(row.verdict for row in rows)
    tiles = [
        tile(verdict, str(number[verdict]), "checks", kind if number[verdict] else "")
        for verdict, kind in _KINDS.items()
    ]
    lines = [
        element(
            "tr",
            element("td", row.verdict),
            element("td", row.name),
            element("td", row.detail),
            element("td", f"{row.seconds:.0f}", class_="num"),
        )
        for row in rows
    ]
    heads = ["Verdict", "Check", "What was found", "!Seconds"]
    return page(
        section("overview", "Overview", element("dl", tiles, class_="tiles")),
        section("checks", "Checks", table("What came of each check", heads, lines)),
        title="First checks on a GPU",
        kind="Pretended GPU" if place.pretend else "GPU report",
        about=summary(place, rows),
        sections={"overview": "Overview", "checks": "Checks"},
        made_by="python -m benchmarks.gpu_first",
    )


def bench(folder: Path, *, pretend: bool = False, only: str = "") -> list[Gate]:
    """All checks whose names have `only` in them; one gate, that none failed."""
    import torch

    from benchmarks.gpu_checks import checks_of

    if not (pretend or torch.cuda.is_available()):
        raise SystemExit("no CUDA device: --pretend runs the same code on a pretended one")

    place = Place(str(folder / "gpu_first"), pretend, only)
    Path(place.folder).mkdir(parents=True, exist_ok=True)
    if not only:
        for stale in ("measured.json", "plain.json"):
            (Path(place.folder) / stale).unlink(missing_ok=True)
    with mock.patch.dict(os.environ, _environment(place)):
        rows = first_checks(place, checks_of)
    shutil.rmtree(Path(place.folder) / "runs", ignore_errors=True)
    print(f"{summary(place, rows)}; {place.folder}/report.html", flush=True)
    failed = sum(row.verdict == "failed" for row in rows)
    return [Gate("first checks on a GPU that failed", failed, 0, at_most=True)]


def _environment(place: Place) -> dict[str, str]:
    """What a check's process is started with."""
    if not place.pretend:
        return {}
    from tests.flamingo.gpu import shim

    if shim.find_compiler() is None:
        print("no C compiler: gradients are made up, and only first losses are compared")
        return {}
    return shim.environment(shim.compile_shim(Path(place.folder)))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pretend", action="store_true", help="on the pretended GPU, tiny")
    parser.add_argument("--only", default="", help="checks whose names have these words in them")
    parser.add_argument(
        "--folder", type=Path, default=Path(os.environ.get("MMDATA_BENCH_DIR", ".bench"))
    )
    options = parser.parse_args()
    gates = bench(options.folder.resolve(), pretend=options.pretend, only=options.only)
    print_gates(gates)
    return 0 if all(gate.passed for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
