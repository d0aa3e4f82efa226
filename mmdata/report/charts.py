"""Bar charts as inline SVG: no library, no script, colours from the page's theme.

A chart is a picture to a screen reader (`role="img"` with what it shows in words) and has its
numbers in a table behind it. Its size is written into it, so that nothing moves when it is drawn;
360 px are the width of a phone, and wider pages put several side by side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mmdata.html import axes, numbers
from mmdata.html.markup import Markup, element
from mmdata.html.numbers import Format
from mmdata.html.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, drawing, label, line, number_of
from mmdata.html.table import plain_table
from mmdata.report.distribution import Bar, Distribution

_MAX_TICKS = 5
_GAP = 1.0


@dataclass(frozen=True, slots=True)
class Chart:
    """How a distribution is to be shown.

    Attributes:
        id: of its heading, unique in the page.
        title: of the chart.
        of: what is counted, in the plural: `images`.
        values: how a value is written.
        ticks: how it is written at the axis, where that is otherwise.
        mark: a value to draw a line at, and its label.
        note: a sentence below the chart.
    """

    id: str
    title: str
    of: str
    values: Format
    ticks: Format | None = None
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
        f"5\u201395% {show(low)} to {show(high)}"
    )


def histogram(chart: Chart, bars: Sequence[Bar], distribution: Distribution) -> Markup:
    """The SVG."""
    top = _nice_above(max(bar.count for bar in bars))
    width = (WIDTH - LEFT - RIGHT) / len(bars)
    floor = HEIGHT - BOTTOM
    height = floor - TOP
    drawn = []
    for value in (top, top / 2):
        drawn += axes.level(floor - height * value / top, numbers.compact(value), LEFT)
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
                x=number_of(LEFT + number * width + _GAP / 2),
                y=number_of(floor - tall),
                width=number_of(max(width - _GAP, 0.5)),
                height=number_of(tall),
            )
        )
    drawn.append(axes.floor(LEFT))
    drawn += _ticks(chart, bars, distribution, width)
    drawn += _mark(chart, bars, distribution, width)
    words = f"Histogram of {distribution.size:,} {chart.of}: {summary(chart, distribution)}"
    return drawing(words, drawn)


def table(chart: Chart, bars: Sequence[Bar], size: int) -> Markup:
    """The numbers of a chart, folded away."""
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
    body = plain_table(chart.title, ["from", "to below", f"!{chart.of}", "!share"], rows)
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


def _ticks(
    chart: Chart, bars: Sequence[Bar], distribution: Distribution, width: float
) -> list[Markup]:
    """Labels: below the middle of a bar of one number, else at round values."""
    write = chart.ticks or chart.values
    if distribution.scale == "count" and bars[0].high - bars[0].low == 1:
        every = -(-len(bars) // _MAX_TICKS)
        shown = list(range(0, len(bars), every))
        places = [LEFT + (number + 0.5) * width for number in shown]
        labels = [("≥\u2009" if bars[n].open_ended else "") + write(bars[n].low) for n in shown]
    else:
        values = _round_values(bars, distribution)
        places = [_place(value, bars, distribution, width) for value in values]
        labels = [write(value) for value in values]
    return [part for at in zip(places, labels, strict=True) for part in axes.tick(*at)]


def _round_values(bars: Sequence[Bar], distribution: Distribution) -> list[float]:
    """At most six round numbers within what the bars span."""
    low, high = bars[0].low, next(bar for bar in reversed(bars) if not bar.open_ended).high
    if distribution.scale == "octave":
        powers = [10.0**power for power in range(14)]
        for parts in (range(1, 10), (1, 2, 5), (1, 3), (1,)):
            values = [part * power for power in powers for part in parts]
            inside = [value for value in values if low <= value <= high]
            if len(inside) <= _MAX_TICKS + 1:
                return inside or [low]
        return inside[:: -(-len(inside) // _MAX_TICKS)]
    return axes.round_values(low, high, axes.round_step((high - low) / _MAX_TICKS, (1, 2, 5, 10)))


def _place(value: float, bars: Sequence[Bar], distribution: Distribution, width: float) -> float:
    """Where a value stands on the axis, px."""
    low, high = bars[0].low, bars[0].high
    if distribution.scale == "octave":
        number = math.log(value / low) / math.log(high / low)
    else:
        number = (value - low) / (high - low)
    return LEFT + number * width


def _mark(
    chart: Chart, bars: Sequence[Bar], distribution: Distribution, width: float
) -> list[Markup]:
    """A line at a value, if the chart reaches there."""
    if chart.mark is None or not bars[0].low <= chart.mark[0] <= bars[-1].high:
        return []
    value, words = chart.mark
    x = _place(value, bars, distribution, width)
    if x > WIDTH - RIGHT:
        return []
    anchor = "start" if x < WIDTH * 0.6 else "end"
    shift = 4 if anchor == "start" else -4
    return [
        line(x, TOP - 10, x, HEIGHT - BOTTOM, "mark"),
        label(x + shift, TOP - 4, words, "tick marked", anchor),
    ]


def _nice_above(value: float) -> float:
    """The next of 1, 2, 4, 6, 8, 10 times a power of ten, whose half is whole from 2 on."""
    power = 1
    while power * 10 < value:
        power *= 10
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value)
