"""What a run has left in its folder, read for the report.

Files are of any run, also of one that another machine or another version made, so nothing in them
is believed: numbers are taken where numbers stand, the rest is left out, and a file that cannot be
read is named on the page.
"""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flamingo.telemetry.names import (
    EVENTS_NAME,
    MEMORY_NAME,
    METRICS_NAME,
    OPTIONS_NAME,
    TELEMETRY_FOLDER,
    VALIDATION_NAME,
)
from mmdata.errors import UserError
from mmdata.wording import plural

Line = Mapping[str, Any]
#: x and y of a curve.
Points = list[tuple[float, float]]


@dataclass(slots=True)
class RunRecord:
    """A run's files.

    Attributes:
        folder: of the run.
        steps: lines of `metrics.jsonl`.
        validation, events, memory: of the files of that name.
        ranks: samples of GPU and host, by rank.
        options: of `mmdata train`.
        problems: files, or lines of files, that are not in the figures.
    """

    folder: str
    steps: list[Line] = field(default_factory=list)
    validation: list[Line] = field(default_factory=list)
    events: list[Line] = field(default_factory=list)
    memory: list[Line] = field(default_factory=list)
    ranks: dict[int, list[Line]] = field(default_factory=dict)
    options: Line = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_run(folder: str) -> RunRecord:
    """All files of a run that are there.

    Raises:
        UserError: the folder holds no run, or one that took no step yet.
    """
    record = RunRecord(folder)
    if not os.path.exists(os.path.join(folder, METRICS_NAME)):
        raise UserError(f"{folder}: holds no {METRICS_NAME}: expected the folder of a training run")
    record.steps = _lines(record, METRICS_NAME)
    if not record.steps:
        raise UserError(f"{folder}: {METRICS_NAME} holds no step yet")
    record.validation = _lines(record, VALIDATION_NAME)
    record.events = _lines(record, EVENTS_NAME)
    record.memory = _lines(record, MEMORY_NAME)
    for name in _names(os.path.join(folder, TELEMETRY_FOLDER)):
        found = re.fullmatch(r"rank-(\d{1,6})\.jsonl", name)
        if found:
            lines = _lines(record, os.path.join(TELEMETRY_FOLDER, name))
            record.ranks[int(found[1])] = sorted(
                (line for line in lines if number(line, "time") is not None),
                key=lambda line: line["time"],
            )
    record.ranks = dict(sorted(record.ranks.items()))
    record.options = _options(record)
    return record


def number(line: Any, *path: str) -> float | None:
    """The finite number at the end of a path of keys, or None."""
    for name in path:
        if not isinstance(line, Mapping):
            return None
        line = line.get(name)
    if isinstance(line, bool) or not isinstance(line, int | float):
        return None
    return float(line) if math.isfinite(line) else None


def points(lines: Sequence[Line], *path: str) -> Points:
    """(step, number) of the lines that have both, by step."""
    found = ((number(line, "step"), number(line, *path)) for line in lines)
    return sorted((step, y) for step, y in found if step is not None and y is not None)


def names_in(lines: Sequence[Line], *path: str) -> list[str]:
    """Keys of the mappings at a path, sorted: streams, categories."""
    names: set[str] = set()
    for line in lines:
        inner: Any = line
        for key in path:
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping):
            names.update(inner)
    return sorted(names)


def _lines(record: RunRecord, name: str) -> list[Line]:
    """Objects of a file of JSON lines, where it exists."""
    path = os.path.join(record.folder, name)
    if not os.path.exists(path):
        return []
    kept: list[Line] = []
    bad = 0
    for line in _decoded(path):
        if isinstance(line, dict) and (number(line, "step") is not None):
            kept.append(line)
        else:
            bad += 1
    if bad:
        record.problems.append(f"{name}: {plural(bad, 'line')} cannot be read")
    return kept


def _decoded(path: str) -> Iterator[Any]:
    """Each line's value; None for one that is no JSON. A last line that is cut short is no line."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                yield json.loads(text)
            except (json.JSONDecodeError, RecursionError):
                if text.endswith("\n"):
                    yield None


def _options(record: RunRecord) -> Line:
    path = os.path.join(record.folder, OPTIONS_NAME)
    if not os.path.exists(path):
        return {}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = json.load(file)
    except (json.JSONDecodeError, RecursionError) as error:
        record.problems.append(f"{OPTIONS_NAME}: {error}")
        return {}
    return found if isinstance(found, dict) else {}


def _names(folder: str) -> list[str]:
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []
