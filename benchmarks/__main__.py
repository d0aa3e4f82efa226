"""`make bench`: every part, then all gates once more; the exit code is 1 where one was not met.

    python -m benchmarks [PART …] [--folder .bench]

Without a name all parts run, in about 20 minutes on two cores, once the corpora are made; but for
`gpu_first`, which is for a GPU, or for a pretended one with `--pretend`.
Each part is a module that also runs alone, with options of its own.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    construct,
    convert,
    draw,
    fetch,
    gpu_first,
    gpu_model,
    loader,
    memory,
    order,
    plan,
    resize,
    save,
    telemetry,
    validate,
    workers,
)
from benchmarks.gates import Gate, load_average, print_gates

PARTS: dict[str, Callable[[Path], list[Gate]]] = {
    "convert": convert.bench,
    "workers": workers.bench,
    "resize": lambda folder: resize.bench(),
    "plan": plan.bench,
    "validate": validate.bench,
    "memory": memory.bench,
    "fetch": lambda folder: fetch.bench(),
    "order": order.bench,
    "draw": draw.bench,
    "loader": loader.bench,
    "telemetry": telemetry.bench,
    "construct": construct.bench,
    "save": save.bench,
    "gpu_model": lambda folder: gpu_model.part(),
}
#: What runs by its name only.
_BY_NAME = "gpu_first"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, _BY_NAME, []], help="all by default")
    parser.add_argument("--pretend", action="store_true", help=f"{_BY_NAME} on a pretended GPU")
    parser.add_argument(
        "--folder", type=Path, default=Path(os.environ.get("MMDATA_BENCH_DIR", ".bench"))
    )
    options = parser.parse_args()
    gates = []
    start = time.monotonic()
    for name in options.parts or PARTS:
        print(f"== {name} ({load_average()})", flush=True)
        folder = options.folder.resolve()
        if name == _BY_NAME:
            gates += gpu_first.bench(folder, pretend=options.pretend)
        else:
            gates += PARTS[name](folder)
        print(flush=True)
    print(f"== gates, after {(time.monotonic() - start) / 60:.0f} minutes")
    print_gates(gates)
    return 0 if all(gate.passed for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
