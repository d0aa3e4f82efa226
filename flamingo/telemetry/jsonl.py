"""JSON lines that a run appends to and a resume takes back: one object a line, with its `step`.

A crash may cut the last line short; readers stop there, and the next start removes it. On a resume,
lines of steps that are about to be repeated go, so that each step stands there once.
"""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from mmdata.storage.atomic import write_atomically


def forget_after(path: str, done: int) -> None:
    """Take lines of later steps out of a log; a line that a crash cut goes too.

    Args:
        path: of the log, which need not exist.
        done: the last step whose lines stay.
    """
    if not os.path.exists(path):
        return
    kept = [line for line in read_log(path) if line["step"] <= done]
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())


def read_log(path: str) -> list[dict[str, Any]]:
    """The lines of a log, without a last one that a crash cut short."""
    lines = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
    return lines


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them."""
    if isinstance(value, Mapping):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
