"""The generated part of docs/levers.md: the table of what cannot be combined.

`python -m tests.levers_page` rewrites what is between `<!-- refusals -->` and `<!-- end -->`.
"""

from flamingo.models.flamingo import options as flamingo
from flamingo.options.combinations import REFUSALS
from tests.conftest import ROOT
from tests.rules_page import with_block

#: In the order in which they are looked at.
ALL_REFUSALS = (*REFUSALS, *flamingo.REFUSALS)
PAGE = ROOT / "docs" / "levers.md"


def refusals() -> str:
    """Every refused combination, as a Markdown table."""
    rows = ["| refused | because | instead |", "|---|---|---|"]
    rows += [f"| {row.options} | {row.why} | {row.instead} |" for row in ALL_REFUSALS]
    return "\n".join(rows)


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_block(page, "refusals", refusals()), "utf-8")
