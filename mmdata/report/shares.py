"""How many there are of each kind: a table with a bar in every row."""

from collections.abc import Mapping

from mmdata.html import numbers
from mmdata.html.markup import Markup, element, shortened
from mmdata.html.svg import number_of

_SHARE = 120  # px, the longest bar
_MAX_KINDS = 12


def shares(identity: str, title: str, counts: Mapping[str, int], of: str) -> Markup:
    """How many there are of each kind: a table whose rows have bars, the most first."""
    whole = sum(counts.values())
    heading = element("h3", title, id=identity)
    if not whole:
        return element("figure", heading, element("p", f"No {of}."), class_="chart panel")
    most = max(counts.values())
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MAX_KINDS]
    rows = []
    for name, number in ordered:
        bar = element(
            "rect", class_="bar", width=number_of(_SHARE * number / most), height=12, rx=2
        )
        drawn = element(
            "svg", bar, viewBox=f"0 0 {_SHARE} 12", width=_SHARE, height=12, aria_hidden="true"
        )
        rows.append(
            element(
                "tr",
                element("th", shortened(name, 24), scope="row"),
                element("td", numbers.count(number), class_="num"),
                element("td", numbers.share(number, whole), class_="num"),
                element("td", drawn, class_="share"),
            )
        )
    heads = [
        element("th", "kind", scope="col"),
        element("th", of, scope="col", class_="num"),
        element("th", "share", scope="col", class_="num"),
        element("td"),
    ]
    body = element(
        "table",
        element("caption", title, class_="hidden"),
        element("thead", element("tr", heads)),
        element("tbody", rows),
    )
    return element(
        "figure", heading, body, class_="chart panel", role="group", aria_labelledby=identity
    )
