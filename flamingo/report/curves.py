"""Curves as inline SVG: no library, no script, colours from the page's theme.

A run of a million steps is drawn as one of two hundred buckets: the line is a bucket's mean, the
band behind it reaches from its least to its greatest value, so that a spike of one step is seen
however long the run is. Columns that cannot be seen tell their numbers to a pointer, and a table
behind the chart tells them to everybody else.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from flamingo.report.record import Points
from mmdata.html import axes
from mmdata.html.markup import Markup, element, shortened
from mmdata.html.numbers import Format
from mmdata.html.svg import BOTTOM, HEIGHT, RIGHT, TOP, WIDTH, drawing, label, line, number_of
from mmdata.html.table import table

_LEFT = 46.0  # px; "12.5 GB" has to stand there
_BUCKETS, _COLUMNS, _ROWS = 200, 48, 16
_COLOURS = 6
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_DAY = 86_400.0
_CLOCK_STEPS = (
    *(1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0),
    *(7200.0, 10_800.0, 21_600.0, 43_200.0, _DAY),
)
_NAME_CHARS = 40
#: Of ten, where every power up to it and down from it is a number with all its digits.
_LAST_POWER = 300


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a chart.

    Attributes:
        name: in the key.
        points: (x, y), x rising.
        band: (x, least, greatest) to draw behind it; else it is made from buckets.
        dots: points joined by dashes: few values, each measured by itself.
    """

    name: str
    points: Points
    band: Sequence[tuple[float, float, float]] = ()
    dots: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One chart.

    Attributes:
        id: of its heading.
        title: heading.
        curves: those without points are left out.
        values: how y is written.
        along: what x is, as `step`.
        xs: how x is written.
        low, high: the least range of y.
        marks: (x, words) of vertical lines.
        limit: (y, words) of a horizontal one.
        note: a sentence below.
        log: y by powers of ten, for what has spikes.
        whole: y is a count.
    """

    id: str
    title: str
    curves: Sequence[Curve]
    values: Format
    along: str = "step"
    xs: Format = field(default=lambda value: f"{value:,.0f}")
    low: float | None = None
    high: float | None = None
    marks: Sequence[tuple[float, str]] = ()
    limit: tuple[float, str] | None = None
    note: str = ""
    log: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class _Scale:
    """Values to pixels."""

    x: Callable[[float], float]
    y: Callable[[float], float]
    x_range: tuple[float, float]
    y_range: tuple[float, float]


def panel(chart: Panel) -> Markup | None:
    """Heading, last values, key, drawing and table; None without any value."""
    curves = [_thinned(curve) for curve in chart.curves if curve.points]
    if not curves:
        return None
    scale = _scale(chart, curves)
    words = "; ".join(
        f"{curve.name} {chart.values(curve.points[-1][1])}" for curve in curves[:_COLOURS]
    )
    drawn = [
        *_grid(chart, scale),
        *_marks(chart, scale),
        *(_band(curve, n, scale) for n, curve in enumerate(curves)),
        *(part for n, curve in enumerate(curves) for part in _line(curve, n, scale)),
        *_columns(chart, curves, scale),
    ]
    return element(
        "figure",
        element("h3", chart.title, id=chart.id),
        element("p", f"last: {words}", class_="stats") if len(curves) == 1 else _key(chart, curves),
        drawing(f"{chart.title} by {chart.along}; last: {words}", drawn),
        element("figcaption", chart.note) if chart.note else None,
        element("details", element("summary", "Numbers"), _table(chart, curves)),
        class_="chart panel",
        role="group",
        aria_labelledby=chart.id,
    )


def running_mean(points: Points) -> Points:
    """Each value as the mean of those around it, over 5% of the run."""
    half = len(points) // 40
    sums = [0.0, *accumulate(y for _, y in points)]
    found = []
    for place, (x, _) in enumerate(points):
        start, end = max(0, place - half), min(len(points), place + half + 1)
        found.append((x, (sums[end] - sums[start]) / (end - start)))
    return found


def colour(place: int) -> str:
    """Class of a curve's or a share's colour; dashed from the seventh on."""
    return f"s{place % _COLOURS + 1}" + (" dash" if place >= _COLOURS else "")


def _thinned(curve: Curve) -> Curve:
    """At most 200 points, with the range of what each stands for."""
    if len(curve.points) <= _BUCKETS:
        return curve
    low, high = curve.points[0][0], curve.points[-1][0]
    width = (high - low) / _BUCKETS or 1.0
    buckets: dict[int, Points] = {}
    for point in curve.points:
        buckets.setdefault(min(int((point[0] - low) / width), _BUCKETS - 1), []).append(point)
    points, band = [], []
    for bucket in buckets.values():
        x = sum(point[0] for point in bucket) / len(bucket)
        values = [point[1] for point in bucket]
        points.append((x, sum(values) / len(values)))
        band.append((x, min(values), max(values)))
    wanted = [*curve.band[:: max(1, len(curve.band) // _BUCKETS)]] if curve.band else band
    return Curve(curve.name, points, wanted, curve.dots)


def _scale(chart: Panel, curves: Sequence[Curve]) -> _Scale:
    xs = [x for curve in chart.curves for x, _ in curve.points]
    left, right = min(xs), max(xs)
    if right <= left:
        left, right = left - 0.5, right + 0.5
    low, high = _range(chart, curves)
    floor = HEIGHT - BOTTOM

    def place_x(value: float) -> float:
        return _LEFT + (WIDTH - RIGHT - _LEFT) * (value - left) / (right - left)

    def place_y(value: float) -> float:
        if chart.log:
            value = math.log10(max(value, 10.0**low))
        share = (value - low) / (high - low)
        return floor - (floor - TOP) * min(1.0, max(0.0, share))

    return _Scale(place_x, place_y, (left, right), (low, high))


def _range(chart: Panel, curves: Sequence[Curve]) -> tuple[float, float]:
    """Least and greatest y; of a logarithmic chart, their exponents."""
    values = [y for curve in curves for _, y in curve.points]
    values += [y for curve in curves for _, *ends in curve.band for y in ends]
    if chart.limit is not None:
        values.append(chart.limit[0])
    if chart.log:
        return _exponents(values)
    low = min(values) if chart.low is None else min(chart.low, *values)
    high = max(values) if chart.high is None else max(chart.high, *values)
    if high - low < 1e-12 * max(abs(high), abs(low), 1e-9):
        half = abs(high) / 10 or 0.5
        return (low if chart.low is not None else low - half), high + half
    space = (high - low) * 0.06
    low = low if chart.low is not None and low >= chart.low else low - space
    return low, high if chart.high is not None and high <= chart.high else high + space


def _exponents(values: Sequence[float]) -> tuple[float, float]:
    """Powers of ten that hold the values, as far as a power of ten is a number itself."""
    positive = [math.log10(value) for value in values if value > 0] or [0.0]
    low = min(max(math.floor(min(positive)), -_LAST_POWER), _LAST_POWER - 1)
    return float(low), float(min(max(math.ceil(max(positive)), low + 1), _LAST_POWER))


def _ticks(
    low: float, high: float, most: int, *, whole: bool = False, seconds: bool = False
) -> list[float]:
    """Round numbers within a range; of seconds, what is round on a clock."""
    wanted = (high - low) / most
    step = axes.round_step(wanted, _STEPS)
    if seconds:
        step = next((one for one in _CLOCK_STEPS if one >= wanted), -(-wanted // _DAY) * _DAY)
    if whole:
        step = max(1.0, math.ceil(step))
    return axes.round_values(low, high, step)


def _grid(chart: Panel, scale: _Scale) -> list[Markup]:
    low, high = scale.y_range
    if chart.log:
        rising = range(int(low), int(high) + 1)
        values = [10.0**power for power in rising[:: -(-len(rising) // 5)]]
    else:
        values = _ticks(low, high, 4, whole=chart.whole)
    drawn: list[Markup] = []
    for value in values:
        drawn += axes.level(scale.y(value), chart.values(value), _LEFT)
    drawn.append(axes.floor(_LEFT))
    is_step = chart.along == "step"
    for value in _ticks(*scale.x_range, 5 if is_step else 4, whole=is_step, seconds=not is_step):
        x = scale.x(value)
        if _LEFT <= x <= WIDTH - RIGHT:
            anchor = "end" if x > WIDTH - RIGHT - 12 else "middle"
            drawn += axes.tick(x, chart.xs(value), anchor)
    return drawn


def _marks(chart: Panel, scale: _Scale) -> list[Markup]:
    drawn = []
    left, right = scale.x_range
    for value, words in chart.marks:
        if left <= value <= right:
            x = scale.x(value)
            hint = element("title", words)
            end = {"y1": number_of(TOP - 8), "y2": number_of(HEIGHT - BOTTOM)}
            drawn.append(
                element("line", hint, class_="resume", x1=number_of(x), x2=number_of(x), **end)
            )
    if chart.limit is not None:
        y = scale.y(chart.limit[0])
        drawn.append(line(_LEFT, y, WIDTH - RIGHT, y, "mark"))
        drawn.append(label(WIDTH - RIGHT, y - 4, chart.limit[1], "tick marked", "end"))
    return drawn


def _band(curve: Curve, place: int, scale: _Scale) -> Markup | None:
    if not curve.band:
        return None
    above = [(x, high) for x, _, high in curve.band]
    below = [(x, low) for x, low, _ in reversed(curve.band)]
    return element("polygon", class_=f"band {colour(place)}", points=_path(above + below, scale))


def _line(curve: Curve, place: int, scale: _Scale) -> list[Markup]:
    drawn = []
    if len(curve.points) > 1:
        kind = "curve thin" if curve.dots else "curve"
        drawn.append(
            element("polyline", class_=f"{kind} {colour(place)}", points=_path(curve.points, scale))
        )
    if curve.dots or len(curve.points) == 1:
        for x, y in curve.points:
            at = {"cx": number_of(scale.x(x)), "cy": number_of(scale.y(y))}
            drawn.append(element("circle", class_=f"dot {colour(place)}", r=2.5, **at))
    return drawn


def _path(points: Points, scale: _Scale) -> str:
    return " ".join(f"{number_of(scale.x(x))},{number_of(scale.y(y))}" for x, y in points)


def _columns(chart: Panel, curves: Sequence[Curve], scale: _Scale) -> list[Markup]:
    """Areas that tell a pointer what stands there."""
    left, right = scale.x_range
    width = (right - left) / _COLUMNS
    drawn = []
    for place in range(_COLUMNS):
        x = left + width * (place + 0.5)
        told = [f"{chart.along} {chart.xs(x)}"]
        told += [f"{curve.name} {chart.values(_at(curve, x))}" for curve in curves]
        drawn.append(
            element(
                "rect",
                element("title", "\n".join(told)),
                class_="hit",
                x=number_of(scale.x(x - width / 2)),
                y=number_of(TOP),
                width=number_of((WIDTH - RIGHT - _LEFT) / _COLUMNS),
                height=number_of(HEIGHT - BOTTOM - TOP),
            )
        )
    return drawn


def _at(curve: Curve, x: float) -> float:
    """The value at or before x, of the first where there is none."""
    place = bisect_right(curve.points, (x, math.inf)) - 1
    return curve.points[max(place, 0)][1]


def _key(chart: Panel, curves: Sequence[Curve]) -> Markup:
    """Which colour is what, with its last value."""
    entries = []
    for place, curve in enumerate(curves):
        swatch = element(
            "svg",
            element("line", class_=f"curve {colour(place)}", x1=0, x2=16, y1=5, y2=5),
            width=16,
            height=10,
            viewBox="0 0 16 10",
            aria_hidden="true",
        )
        name = shortened(curve.name, _NAME_CHARS)
        entries.append(
            element("li", swatch, f" {name} ", element("b", chart.values(curve.points[-1][1])))
        )
    return element("ul", entries, class_="keys", aria_label="Curves, with their last values")


def _table(chart: Panel, curves: Sequence[Curve]) -> Markup:
    """A few rows of each curve."""
    longest = max(curves, key=lambda curve: len(curve.points)).points
    every = max(1, -(-(len(longest) - 1) // (_ROWS - 1)))
    shown = sorted({*range(0, len(longest), every), len(longest) - 1})
    rows = []
    for place in shown:
        x = longest[place][0]
        cells = [element("td", chart.values(_at(curve, x)), class_="num") for curve in curves]
        rows.append(element("tr", element("th", chart.xs(x), scope="row"), cells))
    heads = [chart.along, *(f"!{shortened(curve.name, _NAME_CHARS)}" for curve in curves)]
    return table(chart.title, heads, rows)
