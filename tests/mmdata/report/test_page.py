"""The page as a file: sealed off by its policy, whole by itself, and well-formed for readers of it.

What a browser makes of it: test_in_browser.py.
"""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.html_page import Page, hash_of
from tests.report_factory import BREAKOUT, CLOSING, SCRIPT, hostile_dataset, write_report
from tests.shard_factory import make_dataset


@pytest.fixture(scope="module", params=["plain", "hostile", "empty"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("page")
    if request.param == "plain":
        make_dataset(folder / "shards", shards=3, documents=4)
    elif request.param == "hostile":
        hostile_dataset(folder / "shards")
    else:
        make_dataset(folder / "shards", shards=1, documents=0)
    write_report(folder / "shards", folder / "report.html", title=f"Page {SCRIPT}")
    return Page(folder / "report.html")


def test_the_policy_allows_its_own_script_and_style_and_pictures_and_nothing_else(
    page: Page,
) -> None:
    (policy,) = [
        meta["content"]
        for meta in page.all("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "script-src": hash_of(page.text_of("script")),
        "style-src": hash_of(page.text_of("style")),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert page.source.index("Content-Security-Policy") < page.source.index("<style>")
    assert len(page.all("script")) == len(page.all("style")) == 1


def test_nothing_leads_out_of_the_file(page: Page) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttp|import\(", page.source.split("<body")[0])


def test_nothing_runs_or_styles_from_an_attribute(page: Page) -> None:
    names = {name for _, attributes in page.elements for name in attributes}
    assert not {name for name in names if name.startswith("on") or name == "style"}


def test_elements_are_those_of_a_report(page: Page) -> None:
    """Nothing that data could bring in: one heading, no frame, no link but those of the page."""
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"iframe", "object", "embed", "base", "template", "foreignobject", "use"}
    assert len(page.all("h1")) == 1
    assert len(page.all("link")) == 1


def test_ids_are_unique_and_references_lead_to_one(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "for"):
            assert attributes.get(name, ids[0]) in ids
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids


def test_headings_do_not_skip_a_level(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_pictures_have_words_and_sizes(page: Page) -> None:
    for image in page.all("img"):
        assert image["alt"].startswith("Image ")
        assert int(image["width"]) > 0
        assert int(image["height"]) > 0
    for drawing in page.all("svg"):
        assert drawing.get("aria-label") or drawing.get("aria-hidden") == "true"
        assert drawing["width"]
        assert drawing["height"]


def test_tables_have_a_caption_and_heads_with_a_scope(page: Page) -> None:
    assert len(page.all("caption")) == len(page.all("table"))
    assert {head["scope"] for head in page.all("th")} <= {"row", "col"}


def test_fields_have_names(page: Page) -> None:
    labelled = {label["for"] for label in page.all("label") if "for" in label}
    for field in page.all("select"):
        assert field["id"] in labelled
    for field in page.all("input"):
        assert field.get("aria-label") or field["type"] == "radio"


def test_what_is_hostile_is_there_as_text(tmp_path: Path) -> None:
    hostile_dataset(tmp_path / "shards")
    write_report(tmp_path / "shards", tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    text = "".join(words for inside, words in page.texts if inside not in ("script", "style"))
    for words in (SCRIPT, BREAKOUT, CLOSING + "\\u202egnp.exe\\x1b[2J"):
        assert words in text
    assert "<img src=x" not in page.source
    assert page.source.count("<script>") == 1


def test_the_same_shards_give_the_same_bytes(tmp_path: Path) -> None:
    make_dataset(tmp_path / "shards", shards=3, documents=4)
    pages = []
    for name in ("a.html", "b.html"):
        write_report(tmp_path / "shards", tmp_path / name)
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]
