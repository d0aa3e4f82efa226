"""Tables of a page."""

from collections.abc import Sequence

from mmdata.html.markup import Markup, element, shortened


def table(caption: str, heads: Sequence[str], rows: Sequence[Markup]) -> Markup:
    """A table in a box that scrolls sideways by itself.

    Args:
        caption: what the table shows; read aloud, not seen.
        heads: one a column; those with `!` before them stand over numbers.
        rows: `tr` elements.
    """
    return element(
        "div",
        plain_table(caption, heads, rows),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label=shortened(caption, 80),
    )


def plain_table(caption: str, heads: Sequence[str], rows: Sequence[Markup]) -> Markup:
    """The table of `table` without the box, for one that is never too wide."""
    cells = [
        element("th", head.removeprefix("!"), scope="col", class_="num" if head[0] == "!" else None)
        for head in heads
    ]
    return element(
        "table",
        element("caption", caption, class_="hidden"),
        element("thead", element("tr", cells)),
        element("tbody", rows),
    )
