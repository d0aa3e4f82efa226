"""Bar charts as inline SVG: no library, no script, colours from the page's theme.

A chart is a picture to a screen reader (`role="img"` with what it shows in words) and has its
numbers in a table behind it. Its size is written into it, so that nothing moves when it is drawn;
360 px are the width of a phone, and wider pages put several side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mmdata.report import numbers
from mmdata.report.distribution import Bar, Distribution
from mmdata.report.markup import Markup, element
from mmdata.report.numbers import Format

WIDTH, HEIGHT = 360, 168  # px
_LEFT, _RIGHT, _TOP, _BOTTOM = 36.0, 8.0, 14.0, 24.0
_MAX_TICKS = 5
_GAP = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """How a distribution is to be shown.

    Attributes:
        id: of its heading, unique in the page.
        title: of the chart.
        of: what is counted, in the plural: `images`.
        values: how a value is written.
        ticks: how it is written at the axis.
        mark: a value to draw a line at, and its label.
        note: a sentence below the chart.
    """

    id: str
    title: str
    of: str
    values: Format
    ticks: Format
    mark: tuple[float, str] | None = None
    note: str = ""


def figure(chart: Chart, distribution: Distribution) -> Markup:
    """Heading, summary, chart, and the table of its numbers."""
    heading = element("h3", chart.title, id=chart.id)
    bars = distribution.bars()
    if not bars:
        nothing = element("p", f"No {chart.of}.", class_="muted")
        return element("figure", heading, nothing, class_="chart panel")
    return element(
        "figure",
        heading,
        element("p", summary(chart, distribution), class_="stats"),
        histogram(chart, bars, distribution),
        element("figcaption", chart.note) if chart.note else None,
        table(chart, bars, distribution.size),
        class_="chart panel",
        role="group",
        aria_labelledby=chart.id,
    )


def summary(chart: Chart, distribution: Distribution) -> str:
    """Median, mean and range in one line."""
    show = chart.values
    # Whole numbers have means that are none.
    mean = numbers.decimal if distribution.scale == "count" else show
    low, high = distribution.quantile(0.05), distribution.quantile(0.95)
    return (
        f"median {show(distribution.quantile(0.5))} · mean {mean(distribution.mean)} · "
        f"5–95% {show(low)} to {show(high)}"
    )


def histogram(chart: Chart, bars: Sequence[Bar], distribution: Distribution) -> Markup:
    """The SVG."""
    top = _nice_above(max(bar.count for bar in bars))
    width = (WIDTH - _LEFT - _RIGHT) / len(bars)
    floor = HEIGHT - _BOTTOM
    height = floor - _TOP
    drawn = []
    for line in (top, top / 2):
        y = floor - height * line / top
        drawn.append(_line(_LEFT, y, WIDTH - _RIGHT, y, "grid"))
        label = numbers.compact(line)
        drawn.append(_text(_LEFT - 5, y + 3.5, label, "tick", "end"))
    for number, bar in enumerate(bars):
        tall = height * bar.count / top
        if bar.count:
            tall = max(tall, 1.0)  # one image among a million is not none
        hint = f"{label_of(chart, bar, distribution)}: {bar.count:,} {chart.of}"
        drawn.append(
            element(
                "rect",
                element("title", f"{hint} ({numbers.share(bar.count, distribution.size)})"),
                class_="bar open" if bar.open_ended else "bar",
                x=_number(_LEFT + number * width + _GAP / 2),
                y=_number(floor - tall),
                width=_number(max(width - _GAP, 0.5)),
                height=_number(tall),
            )
        )
    drawn.append(_line(_LEFT, floor, WIDTH - _RIGHT, floor, "axis"))
    drawn += _ticks(chart, bars, width, floor)
    drawn += _mark(chart, bars, width, floor)
    return element(
        "svg",
        *drawn,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        width=WIDTH,
        height=HEIGHT,
        role="img",
        aria_label=f"Histogram of {distribution.size:,} {chart.of}: {summary(chart, distribution)}",
    )


def table(chart: Chart, bars: Sequence[Bar], size: int) -> Markup:
    """The numbers of a chart, folded away."""
    head = element(
        "tr",
        element("th", "from", scope="col"),
        element("th", "to below", scope="col"),
        element("th", chart.of, scope="col", class_="num"),
        element("th", "share", scope="col", class_="num"),
    )
    rows = [
        element(
            "tr",
            element("th", chart.values(bar.low), scope="row"),
            element("td", "and above" if bar.open_ended else chart.values(bar.high)),
            element("td", numbers.count(bar.count), class_="num"),
            element("td", numbers.share(bar.count, size), class_="num"),
        )
        for bar in bars
    ]
    caption = element("caption", chart.title, class_="hidden")
    body = element("table", caption, element("thead", head), element("tbody", rows))
    return element("details", element("summary", "Numbers"), body)


def label_of(chart: Chart, bar: Bar, distribution: Distribution) -> str:
    """The values that a bar stands for."""
    if bar.open_ended:
        return f"{chart.values(bar.low)} and above (up to {chart.values(bar.high)})"
    if distribution.scale == "count" and bar.high - bar.low == 1:
        return chart.values(bar.low)
    if distribution.scale == "count":
        return f"{chart.values(bar.low)} to {chart.values(bar.high - 1)}"
    return f"{chart.values(bar.low)} to {chart.values(bar.high)}"


def _ticks(chart: Chart, bars: Sequence[Bar], width: float, floor: float) -> list[Markup]:
    """Labels: below the middle of a bar of one number, below the edge of a bar of many."""
    single = all(bar.high - bar.low == 1 for bar in bars if not bar.open_ended)
    middle = width / 2 if single and chart.ticks in (numbers.count, numbers.compact) else 0.0
    every = -(-len(bars) // _MAX_TICKS)
    drawn = []
    for number in range(0, len(bars), every):
        bar = bars[number]
        x = _LEFT + number * width + middle
        sign = "≥" if bar.open_ended else ""
        drawn.append(_line(x, floor, x, floor + 3, "axis"))
        drawn.append(_text(x, floor + 15, sign + chart.ticks(bar.low), "tick", "middle"))
    return drawn


def _mark(chart: Chart, bars: Sequence[Bar], width: float, floor: float) -> list[Markup]:
    """A line at a value, if the chart reaches there."""
    if chart.mark is None or not bars[0].low <= chart.mark[0] <= bars[-1].high:
        return []
    value, label = chart.mark
    place = (value - bars[0].low) / (bars[0].high - bars[0].low)
    x = _LEFT + place * width
    if x > WIDTH - _RIGHT:
        return []
    anchor = "start" if x < WIDTH * 0.6 else "end"
    shift = 4 if anchor == "start" else -4
    return [
        _line(x, _TOP - 8, x, floor, "mark"),
        _text(x + shift, _TOP - 3, label, "tick marked", anchor),
    ]


def _nice_above(value: float) -> float:
    """The next of 1, 2, 4, 6, 8, 10 times a power of ten, whose half is whole from 2 on."""
    power = 1
    while power * 10 < value:
        power *= 10
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    places = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return element("line", class_=kind, **{name: _number(at) for name, at in places.items()})


def _text(x: float, y: float, label: str, kind: str, anchor: str) -> Markup:
    return element(
        "text", label, x=_number(x), y=_number(y), class_=kind, text_anchor=anchor, aria_hidden="true"
    )


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
