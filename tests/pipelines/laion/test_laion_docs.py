"""The example in docs/formats.md is what a conversion makes of it."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from pipelines.laion.run import convert_laion
from tests.corpus import ROOT, picture
from tests.laion_factory import options, pairs, write
from tests.web import serve


def shown(name: str) -> dict[str, Any]:
    """An example of the page, by its mark."""
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- {name} -->\n```json\n(.*?)\n```", page)
    assert found is not None
    example: dict[str, Any] = json.loads(found[1])
    return example


def test_the_row_becomes_the_pair(tmp_path: Path) -> None:
    with serve() as web:
        row, pair = shown("laion row"), shown("laion pair")
        site = web.url("")
        row["URL"] = row["URL"].replace("http://images.example", site)
        source = write(tmp_path / "a.jsonl", [row])
        convert_laion(options(source, tmp_path / "out", layout="pairs"), quiet=True)
    (sample,) = pairs(tmp_path / "out").values()
    pair["url"] = pair["url"].replace("http://images.example", site)
    pair["sha256"] = hashlib.sha256(picture(1)).hexdigest()
    assert list(json.loads(sample["json"]).items()) == list(pair.items())
