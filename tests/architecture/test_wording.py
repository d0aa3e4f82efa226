"""Words: counts that agree with their nouns, docstrings that can be read alone, unique names.

Numbers of things are said by `mmdata.wording.plural`, so that nothing reads `1 shards`.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: What is counted, in the plural. Bytes are apart: where they are told there are many.
_THINGS = (
    *("shards", "documents", "images", "records", "samples", "files", "units", "steps", "rows"),
    *("inputs", "findings", "problems", "sentences", "members", "options", "lines", "pairs"),
    *("epochs", "folders", "errors", "warnings", "ranks", "lanes", "cores", "reasons", "groups"),
)
#: How a text begins that says nothing to who has not read the line above it.
_LEANS = re.compile(r"Of |The same\b|As above|As `|Likewise")
_PLURAL = re.compile(rf" (?:\w+ )?(?:{'|'.join(_THINGS)})\b(?!/s)")


def sources() -> list[Path]:
    packages = ("mmdata", "pipelines", "flamingo", "schemas")
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


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
        for path in sources()
        if (written := list(counts(path.read_text(encoding="utf-8"))))
    }
    assert found == {}, f"write these with mmdata.wording.plural: {found}"


def leaning(source: str) -> list[str]:
    """Docstrings of classes and functions, and texts below fields, that need the line above."""
    return [
        str(inner.value.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        for inner in node.body
        if isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant)
        if _LEANS.match(str(inner.value.value))
    ]


@pytest.mark.parametrize("text", ["Of a run.", "The same in bytes.", "As `load`, but faster."])
def test_a_text_that_leans_on_the_line_above_is_found(text: str) -> None:
    assert leaning(f'class A:\n    """{text}"""\n    b: int\n    """{text}"""') == [text] * 2


def test_docstrings_can_be_read_alone() -> None:
    found = {
        str(path.relative_to(ROOT)): texts
        for path in sources()
        if (texts := leaning(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_a_public_class_has_a_name_of_its_own() -> None:
    places = defaultdict(list)
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
