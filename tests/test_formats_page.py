"""The examples in docs/formats.md are what the converter makes of the fixtures."""

from tests.formats_page import ASSETS, BLOCK, PAGE, page


def test_the_examples_are_those_of_the_fixtures() -> None:
    """`python -m tests.formats_page` rewrites them after a change that was meant."""
    assert page() == PAGE.read_text(encoding="utf-8")


def test_every_format_is_shown() -> None:
    shown = {match[1] for match in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))}
    assert shown >= {path.stem for path in ASSETS.glob("*.json*")} >= {"llava", "chatgpt"}
