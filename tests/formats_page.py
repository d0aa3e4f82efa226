"""The examples of docs/formats.md, made from `tests/assets/formats` by the converter itself.

`python -m tests.formats_page` rewrites what is between `<!-- format NAME -->` and `<!-- end -->`;
a test compares them.
"""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from pipelines.custom.options import ConvertCustom
from pipelines.custom.run import convert_custom
from tests.corpus import ROOT, documents_of

PAGE = ROOT / "docs" / "formats.md"
ASSETS = ROOT / "tests" / "assets" / "formats"
BLOCK = re.compile(r"<!-- format (\w+) -->\n.*?<!-- end -->", re.DOTALL)
_LONGEST = 60


def page() -> str:
    """The page with its examples made anew."""
    return BLOCK.sub(lambda match: block(match[1]), PAGE.read_text(encoding="utf-8"))


def block(name: str) -> str:
    """A record of a format and the document that it becomes, without pictures."""
    (path,) = ASSETS.glob(f"{name}.json*")
    text = path.read_text(encoding="utf-8")
    record = json.loads(text)[0] if path.suffix == ".json" else json.loads(text)
    return (
        f"<!-- format {name} -->\n```json\n{shown(record)}\n```\n\nbecomes\n\n"
        f"```json\n{shown(document(path))}\n```\n<!-- end -->"
    )


def document(path: Path) -> dict[str, Any]:
    """What becomes of the record, less what every document has."""
    with tempfile.TemporaryDirectory() as folder:
        options = ConvertCustom(
            inputs=(str(path),), image_root=str(ROOT / "examples"), output=folder, workers=0
        )
        convert_custom(options, quiet=True)
        (found,) = documents_of(Path(folder)).values()
    images = [
        {name: image[name] for name in ("image_name", "matched_text_index")}
        for image in found["image_info"]
    ]
    left_out = ("format_version", "image_info")
    rest = {name: value for name, value in found.items() if name not in left_out}
    return {"text_list": rest.pop("text_list"), "image_info": images, **rest}


def shown(value: dict[str, Any]) -> str:
    """JSON with one field a line, and one element a line where a field is long."""
    rows = []
    for name, field in value.items():
        line = compact(field)
        if len(line) > _LONGEST and isinstance(field, list):
            line = "[\n" + ",\n".join(f"    {compact(one)}" for one in field) + "\n  ]"
        rows.append(f"  {compact(name)}: {line}")
    return "{\n" + ",\n".join(rows) + "\n}"


def compact(value: Any) -> str:
    """JSON on one line, with long base64 cut short."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub(r"(iVBORw0K)[A-Za-z0-9+/=]{20,}", r"\1…", text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
