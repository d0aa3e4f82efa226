"""Sections on what the run ran on: memory by phase of a step, GPUs, hosts.

GPU and host are drawn over the time that the run was running: where no rank told anything for a
while, it was stopped, and the pause is cut out. Up to four GPUs have a curve each; of more, the
median is drawn, with a band from the least to the greatest, and the rank that is farthest from the
median is named: one slow or hot GPU slows all.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from flamingo.report.curves import Curve, Panel, colour
from flamingo.report.record import Line, Points, RunRecord, names_in, number, points
from flamingo.report.training import grid, percent
from flamingo.telemetry.console import duration
from mmdata.html import numbers
from mmdata.html.markup import Markup, element, shortened
from mmdata.html.numbers import Format
from mmdata.html.svg import number_of
from mmdata.html.table import table
from mmdata.report.sections import section

_MOST_CURVES = 4
_BAR = 240  # px of the fullest phase
_APART = 0.05  # of the median: what is worth naming
_LEAST_PAUSE = 60.0  # s without a sample of any rank: the run was stopped


class Clock:
    """Seconds since the start, without pauses.

    Attributes:
        starts: of every time that the run went on, but the first.
    """

    def __init__(self, ranks: Mapping[int, Sequence[Line]]) -> None:
        times = sorted(line["time"] for lines in ranks.values() for line in lines)
        gaps = [after - before for before, after in pairwise(times)]
        usual = median([gap for gap in gaps if gap > 0.5] or [0.0])
        pause = max(_LEAST_PAUSE, 5 * usual)
        self._begins, self._at = [times[0] if times else 0.0], [0.0]
        for before, gap in zip(times, gaps, strict=False):
            if gap > pause:
                self._at.append(self._at[-1] + before - self._begins[-1])
                self._begins.append(before + gap)
        self.starts = self._at[1:]

    def of(self, time: float) -> float:
        """The running time at a point of the wall clock."""
        place = max(0, bisect_right(self._begins, time) - 1)
        return self._at[place] + time - self._begins[place]


def memory(record: RunRecord) -> Markup:
    """What is in the memory of a GPU, by phase of a step."""
    if not record.memory:
        text = "This run wrote no memory by category."
        return section("memory", "Memory by phase", element("p", text, class_="muted"))
    charts = [
        Panel(
            id="c-allocated",
            title="Memory of rank 0, over all phases",
            curves=[
                Curve(name, _greatest(points(record.memory, name)))
                for name in ("allocated", "peak", "reserved")
            ],
            values=numbers.num_bytes,
            low=0.0,
        )
    ]
    last = max(number(line, "step") or 0 for line in record.memory)
    lines = [line for line in record.memory if number(line, "step") == last]
    names = names_in(lines, "categories")
    return section(
        "memory",
        "Memory by phase",
        element("div", _phases(lines, names, last), class_="panel padded"),
        grid(charts),
    )


def _phases(lines: Sequence[Line], names: Sequence[str], step: float) -> list[Markup]:
    """A bar a phase, its parts the categories, and the table of them."""
    totals = [sum(number(line, "categories", name) or 0 for name in names) for line in lines]
    most = max([*totals, 1.0])
    rows = []
    for line, total in zip(lines, totals, strict=True):
        x, parts = 0.0, []
        for place, name in enumerate(names):
            width = _BAR * (number(line, "categories", name) or 0) / most
            hint = element("title", f"{name} {numbers.num_bytes(width * most / _BAR)}")
            at = {"x": number_of(x), "width": number_of(width)}
            parts.append(
                element("rect", hint, class_=f"part {colour(place)}", y=0, height=14, **at)
            )
            x += width
        cells = [
            element("td", numbers.num_bytes(number(line, "categories", name) or 0), class_="num")
            for name in names
        ]
        phase = shortened(str(line.get("phase", "")), 40)
        drawn = element(
            "svg", *parts, viewBox=f"0 0 {_BAR} 14", width=_BAR, height=14, aria_hidden="true"
        )
        rows.append(
            element(
                "tr",
                element("th", phase, scope="row"),
                element("td", drawn, class_="stack"),
                cells,
                element("td", numbers.num_bytes(total), class_="num"),
            )
        )
    keys = [
        element("li", _swatch(place), f" {shortened(name, 40)}") for place, name in enumerate(names)
    ]
    heads = ["phase", "share", *(f"!{shortened(name, 40)}" for name in names), "!together"]
    return [
        element("p", f"At step {step:,.0f}", class_="stats"),
        element("ul", keys, class_="keys", aria_label="Categories"),
        table("Memory by phase and category", heads, rows),
    ]


def _swatch(place: int) -> Markup:
    return element(
        "svg",
        element("rect", class_=f"part {colour(place)}", width=10, height=10),
        width=10,
        height=10,
        viewBox="0 0 10 10",
        aria_hidden="true",
    )


def _greatest(found: Points) -> Points:
    """One value a step."""
    by_step: dict[float, float] = {}
    for step, value in found:
        by_step[step] = max(value, by_step.get(step, value))
    return sorted(by_step.items())


def gpus(record: RunRecord) -> Markup:
    """The panels that a GPU is judged by."""
    with_gpu = _ranks_with(record, "gpu")
    if not with_gpu:
        text = "No GPU told anything in this run."
        return section("gpus", "GPUs", element("p", text, class_="muted"))
    clock = Clock(record.ranks)
    kinds = {str(line.get("gpu_name", "GPU")) for lines in with_gpu.values() for line in lines}
    lead = f"{numbers.plural(len(with_gpu), 'GPU')}: {shortened(', '.join(sorted(kinds)), 120)}."
    watts = _limit(with_gpu, "power_limit_watts")

    def chart(name: str, title: str, values: Format, **more: Any) -> Panel:
        curves = _of_ranks(with_gpu, clock, "gpu", name)
        note = _farthest(with_gpu, name, values)
        return _timed(f"c-gpu-{name.replace('_', '-')}", title, curves, values, clock, note, more)

    errors = {"low": 0.0, "high": 1.0, "whole": True}
    panels = [
        chart("utilization", "Utilisation", percent, low=0.0, high=1.0),
        chart("memory_access", "Time that memory was accessed", percent, low=0.0, high=1.0),
        chart("memory_share", "Memory allocated", percent, low=0.0, high=1.0),
        chart("memory_bytes", "Memory allocated, bytes", numbers.num_bytes, low=0.0),
        chart(
            "power_watts",
            "Power",
            _unit("W"),
            low=0.0,
            limit=None if watts is None else (watts, f"limit {watts:,.0f} W"),
        ),
        chart("temperature", "Temperature", _unit("°C")),
        chart("sm_clock_mhz", "Clock of the SMs", _gigahertz, low=0.0),
        chart("memory_clock_mhz", "Clock of the memory", _gigahertz, low=0.0),
        chart("ecc_corrected", "Memory errors, corrected", numbers.count, **errors),
        chart("ecc_uncorrected", "Memory errors, not corrected", numbers.count, **errors),
    ]
    return section("gpus", "GPUs", element("p", lead, class_="lead"), grid(panels))


def hosts(record: RunRecord) -> Markup:
    """Processors, memory and disk of the machines."""
    with_host = _ranks_with(record, "host")
    clock = Clock(record.ranks)

    def chart(names: Mapping[str, str], title: str, values: Format, **more: Any) -> Panel:
        curves = []
        for name, words in names.items():
            for curve in _of_ranks(with_host, clock, "host", name):
                label = curve.name if not words else f"{words}, {curve.name}"
                curves.append(Curve(label, curve.points, curve.band))
        return _timed(f"c-host-{next(iter(names))}", title, curves, values, clock, "", more)

    panels = [
        chart({"cpu_share": ""}, "Processors in use", percent, low=0.0, high=1.0),
        chart(
            {"rss_bytes": "trainer", "children_rss_bytes": "children"},
            "Memory of the trainer and its children",
            numbers.num_bytes,
            low=0.0,
        ),
        chart({"memory_share": ""}, "Memory of the machine in use", percent, low=0.0, high=1.0),
        chart(
            {"disk_read_bytes_per_second": "read", "disk_write_bytes_per_second": "written"},
            "Disk, bytes a second",
            numbers.num_bytes,
            low=0.0,
        ),
        chart({"disk_free_bytes": ""}, "Space left for the run", numbers.num_bytes, low=0.0),
    ]
    return section("hosts", "Hosts", grid(panels))


def _ranks_with(record: RunRecord, part: str) -> dict[int, list[Line]]:
    """The lines of those ranks that told anything of a GPU or a host."""
    ranks = record.ranks.items()
    return {rank: lines for rank, lines in ranks if any(line.get(part) for line in lines)}


def _timed(
    identity: str,
    title: str,
    curves: Sequence[Curve],
    values: Format,
    clock: Clock,
    note: str,
    more: dict[str, Any],
) -> Panel:
    return Panel(
        id=identity.replace("_", "-"),
        title=title,
        curves=curves,
        values=values,
        along="running time",
        xs=duration,
        marks=[(start, "the run went on") for start in clock.starts],
        note=note,
        **more,
    )


def _of_ranks(
    ranks: Mapping[int, Sequence[Line]], clock: Clock, part: str, name: str
) -> list[Curve]:
    """A curve a rank, or the median of many."""
    found: dict[int, Points] = {}
    for rank, lines in ranks.items():
        values = ((clock.of(line["time"]), number(line, part, name)) for line in lines)
        found[rank] = [(x, y) for x, y in values if y is not None]
    found = {rank: curve for rank, curve in found.items() if curve}
    if len(found) <= _MOST_CURVES:
        return [Curve(f"rank {rank}", curve) for rank, curve in found.items()]
    return [_median(found)]


def _median(found: Mapping[int, Points]) -> Curve:
    """Over ranks, in as many slices of time as a rank has samples."""
    longest = max(map(len, found.values()))
    end = max(curve[-1][0] for curve in found.values()) or 1.0
    slices: dict[int, list[float]] = defaultdict(list)
    for curve in found.values():
        for x, y in curve:
            slices[min(int(x / end * longest), longest - 1)].append(y)
    places = [((place + 0.5) * end / longest, values) for place, values in sorted(slices.items())]
    return Curve(
        f"median of {len(found)}",
        [(x, median(values)) for x, values in places],
        [(x, min(values), max(values)) for x, values in places],
    )


def _farthest(ranks: Mapping[int, Sequence[Line]], name: str, values: Format) -> str:
    """A sentence that names the rank whose mean is farthest from the median of the means."""
    means = {}
    for rank, lines in ranks.items():
        found = [y for line in lines if (y := number(line, "gpu", name)) is not None]
        if found:
            means[rank] = sum(found) / len(found)
    if len(means) <= _MOST_CURVES:
        return ""
    middle = median(means.values())
    rank = max(means, key=lambda one: abs(means[one] - middle))
    if abs(means[rank] - middle) <= _APART * abs(middle):
        return ""
    return f"Farthest from the others: rank {rank}, {values(means[rank])} on average."


def _limit(ranks: Mapping[int, Sequence[Line]], name: str) -> float | None:
    found = [number(line, "gpu", name) for lines in ranks.values() for line in lines]
    return max((value for value in found if value is not None), default=None)


def _gigahertz(value: float) -> str:
    return f"{value / 1000:.3g}\u00a0GHz"


def _unit(unit: str) -> Format:
    return lambda value: f"{value:,.0f}\u00a0{unit}"
