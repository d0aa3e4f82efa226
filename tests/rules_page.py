"""The generated parts of docs/rules.md: the table of rules, and what single flipped bits showed.

`python -m tests.rules_page` measures and rewrites what is between `<!-- NAME -->` and
`<!-- end -->` (half a minute); a test compares the table, another one measures again.
"""

import re
import tempfile
from pathlib import Path

from mmdata.validation.rules import RULES
from tests.bit_flips import share_found_elsewhere
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "rules.md"
POSITIONS, SEED = 2000, 3
_SHARE = re.compile(r"([0-9.]+)% of ([0-9,]+) flips elsewhere")


def table() -> str:
    """Every rule, as a Markdown table."""
    rows = ["| code | severity | level | meaning | remedy |", "|---|---|---|---|---|"]
    for rule in RULES.values():
        cells = (f"`{rule.code}`", rule.severity, rule.level, rule.meaning, rule.remedy)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows)


def flips() -> str:
    """What was measured just now."""
    with tempfile.TemporaryDirectory() as folder:
        found, tried = share_found_elsewhere(Path(folder), POSITIONS, SEED)
    return (
        f"Measured on a shard of 50 samples: {found / tried:.1%} of {tried:,} flips elsewhere\n"
        "(text, field names, numbers, brackets) were found without a sidecar."
    )


def with_block(page: str, name: str, text: str) -> str:
    """The page with one generated part put in anew."""
    block = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
    return block.sub(lambda match: f"{match[1]}{text}{match[2]}", page)


def measured() -> tuple[float, int]:
    """(share, positions) as the page says them."""
    match = _SHARE.search(PAGE.read_text(encoding="utf-8"))
    assert match is not None
    return float(match[1]) / 100, int(match[2].replace(",", ""))


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_block(with_block(page, "rules", table()), "flips", flips()), "utf-8")
