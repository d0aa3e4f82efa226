"""The parts that every chart is drawn with, and the size that all have.

360 px are the width of a phone; wider pages put several charts side by side. The size is written
into the drawing, so that nothing moves when it is there.
"""

from mmdata.html.markup import Child, Markup, element

WIDTH, HEIGHT = 360, 168  # px
LEFT, RIGHT, TOP, BOTTOM = 36.0, 8.0, 18.0, 24.0  # px around what is drawn


def drawing(words: str, *children: Child) -> Markup:
    """An SVG, which is one picture with a description to those who do not see it."""
    return element(
        "svg",
        *children,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        width=WIDTH,
        height=HEIGHT,
        role="img",
        aria_label=words,
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A line of a class of the style sheet."""
    places = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return element("line", class_=kind, **{name: number_of(at) for name, at in places.items()})


def label(x: float, y: float, words: Child, kind: str, anchor: str) -> Markup:
    """Text; `anchor` is the part of it that stands at x: start, middle or end."""
    return element("text", words, x=number_of(x), y=number_of(y), class_=kind, text_anchor=anchor)


def number_of(value: float) -> str:
    """A coordinate, to a hundredth of a pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
