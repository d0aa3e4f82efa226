"""Values in an order, as dots: whether all shards of a dataset are alike."""

from collections.abc import Sequence

from mmdata.html import numbers
from mmdata.html.markup import Markup, element
from mmdata.html.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, drawing, label, line, number_of

_LEFT = LEFT + 8  # px; three decimals are wider than a count
_LEAST_SPAN = 0.01  # of a cosine: less than that is noise and is not blown up

#: What a value is of, and the value.
Points = Sequence[tuple[str, float]]


def series(identity: str, title: str, points: Points, note: str) -> Markup:
    """Heading, range, dots, and the table of the numbers; at least one point."""
    values = [value for _, value in points]
    words = f"{title}: {numbers.cosine(min(values))} to {numbers.cosine(max(values))}"
    return element(
        "figure",
        element("h3", title, id=identity),
        element("p", words, class_="stats"),
        drawing(words, _dots(points)),
        element("figcaption", note),
        element("details", element("summary", "Numbers"), _table(title, points)),
        class_="chart panel",
        role="group",
        aria_labelledby=identity,
    )


def _dots(points: Points) -> list[Markup]:
    low, high = min(value for _, value in points), max(value for _, value in points)
    middle, half = (low + high) / 2, max((high - low) / 2 * 1.2, _LEAST_SPAN)
    floor = HEIGHT - BOTTOM
    step = (WIDTH - _LEFT - RIGHT) / len(points)

    def height(value: float) -> float:
        return floor - (floor - TOP) * (value - middle + half) / (2 * half)

    drawn = []
    for value in (middle - half, middle, middle + half):
        drawn.append(line(_LEFT, height(value), WIDTH - RIGHT, height(value), "grid"))
        drawn.append(label(_LEFT - 5, height(value) + 3.5, numbers.cosine(value), "tick", "end"))
    for number, (name, value) in enumerate(points):
        hint = element("title", f"{name}: {numbers.cosine(value)}")
        x = number_of(_LEFT + (number + 0.5) * step)
        drawn.append(
            element("circle", hint, class_="bar", cx=x, cy=number_of(height(value)), r=2.5)
        )
    drawn.append(label(_LEFT, floor + 15, points[0][0], "tick", "start"))
    drawn.append(label(WIDTH - RIGHT, floor + 15, points[-1][0], "tick", "end"))
    return drawn


def _table(title: str, points: Points) -> Markup:
    rows = []
    for name, value in points:
        cell = element("td", numbers.cosine(value), class_="num")
        rows.append(element("tr", element("th", name, scope="row"), cell))
    heads = [element("th", "shards", scope="col"), element("th", "mean", scope="col", class_="num")]
    caption = element("caption", title, class_="hidden")
    body = element("tbody", rows)
    return element("table", caption, element("thead", element("tr", heads)), body)
