"""Numbers of things are said by `mmdata.wording.plural`, so that nothing reads `1 shards`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: What is counted, in the plural. Bytes are apart: where they are told there are many.
_THINGS = (
    *("shards", "documents", "images", "records", "samples", "files", "units", "steps", "rows"),
    *("inputs", "findings", "problems", "sentences", "members", "options", "lines", "pairs"),
    *("epochs", "folders", "errors", "warnings", "ranks", "lanes", "cores", "reasons", "groups"),
)
_PLURAL = re.compile(rf" (?:\w+ )?(?:{'|'.join(_THINGS)})\b(?!/s)")


def counts(source: str) -> Iterator[str]:
    """Numbers with a word in the plural behind them: `{n:,} shards`, `{len(x)} shards`."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, text in zip(node.values, node.values[1:], strict=False):
            if not isinstance(value, ast.FormattedValue) or not isinstance(text, ast.Constant):
                continue
            spec = ast.unparse(value.format_spec) if value.format_spec else ""
            is_length = isinstance(value.value, ast.Call) and ast.unparse(value.value.func) == "len"
            if (spec == "f','" or is_length) and _PLURAL.match(str(text.value)):
                yield ast.unparse(node)


def test_a_count_is_found_where_it_is_written_by_hand() -> None:
    assert list(counts("f'{n:,} shards'")) == ["f'{n:,} shards'"]
    assert list(counts("f'{len(x)} bad images'")) == ["f'{len(x)} bad images'"]
    assert not list(counts("f'{n:,} images/s, {plural(n, str())}, {rate:.1f} images'"))


def test_no_number_stands_before_a_plural_of_its_own() -> None:
    found = {
        str(path.relative_to(ROOT)): written
        for folder in ("mmdata", "pipelines", "flamingo")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (written := list(counts(path.read_text(encoding="utf-8"))))
    }
    assert found == {}, f"write these with mmdata.wording.plural: {found}"
