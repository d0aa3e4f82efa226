"""Axes of charts: round values to label, and the lines, ticks and labels that are drawn."""

import math
from collections.abc import Sequence

from mmdata.html.markup import Markup
from mmdata.html.svg import BOTTOM, HEIGHT, RIGHT, WIDTH, label, line


def round_step(least: float, parts: Sequence[float]) -> float:
    """The smallest round step that is no smaller than `least`.

    Args:
        least: above 0.
        parts: what is round: ascending factors of a power of ten, from 1 to 10.
    """
    power = 10.0 ** math.floor(math.log10(least))
    return power * next((part for part in parts if power * part >= least), parts[-1])


def round_values(low: float, high: float, step: float) -> list[float]:
    """The multiples of a step within a range, its ends included."""
    first = math.ceil(low / step - 1e-9)
    return [step * number for number in range(first, math.floor(high / step + 1e-9) + 1)]


def level(y: float, words: str, left: float) -> list[Markup]:
    """A line across the chart, with its label to the left; `y` and `left` are px."""
    return [
        line(left, y, WIDTH - RIGHT, y, "grid"),
        label(left - 5, y + 3.5, words, "tick", "end"),
    ]


def floor(left: float) -> Markup:
    """The line of the horizontal axis, from `left` px on."""
    return line(left, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis")


def tick(x: float, words: str, anchor: str = "middle") -> list[Markup]:
    """A mark at the horizontal axis, `x` px from the left, with its label below."""
    y = HEIGHT - BOTTOM
    return [line(x, y, x, y + 3, "axis"), label(x, y + 15, words, "tick", anchor)]
