"""The page as a file: sealed off, whole by itself, hostile text as text, as the data report is."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from flamingo.report.options import TrainReport
from flamingo.report.page import train_report
from mmdata.errors import UserError
from tests.flamingo.report.run_factory import hostile_run, make_run, write
from tests.html_page import Page, hash_of
from tests.report_factory import BREAKOUT, CLOSING, SCRIPT


@pytest.fixture(scope="module", params=["plain", "hostile", "least"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("page") / "run"
    if request.param == "plain":
        make_run(folder)
    elif request.param == "hostile":
        hostile_run(folder)
    else:
        folder.mkdir()
        write(folder / "metrics.jsonl", [{"step": 1}])
    train_report(TrainReport(run=str(folder), title=f"Page {SCRIPT}"))
    return Page(folder / "report.html")


def test_the_policy_allows_its_own_script_and_style_and_nothing_else(page: Page) -> None:
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


def test_nothing_leads_out_of_the_file_or_runs_from_an_attribute(page: Page) -> None:
    for tag, attributes in page.elements:
        assert not {name for name in attributes if name.startswith("on") or name == "style"}
        for name in ("src", "href", "action", "data", "srcset", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"iframe", "object", "embed", "base", "template", "foreignobject", "use"}
    assert len(page.all("script")) == len(page.all("style")) == len(page.all("h1")) == 1


def test_ids_are_unique_and_references_lead_to_one(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        assert attributes.get("aria-labelledby", ids[0]) in ids
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids


def test_headings_tables_and_drawings_can_be_read_aloud(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table"))
    assert {head["scope"] for head in page.all("th")} <= {"row", "col"}
    for drawing in page.all("svg"):
        assert drawing.get("aria-label") or drawing.get("aria-hidden") == "true"
        assert drawing["width"]
        assert drawing["height"]


def test_what_is_hostile_is_there_as_text(tmp_path: Path) -> None:
    train_report(TrainReport(run=str(hostile_run(tmp_path / "run"))))
    page = Page(tmp_path / "run" / "report.html")
    text = "".join(words for inside, words in page.texts if inside not in ("script", "style"))
    for words in (SCRIPT, BREAKOUT, CLOSING):
        assert words in text
    assert "\u202e" not in page.source
    assert "<img src=x" not in page.source
    assert page.source.count("<script>") == 1


def test_the_same_folder_gives_the_same_bytes_wherever_they_go(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=30)
    train_report(TrainReport(run=str(folder)))
    train_report(TrainReport(run=str(folder), output=str(tmp_path / "other.html")))
    assert (folder / "report.html").read_bytes() == (tmp_path / "other.html").read_bytes()


def test_a_run_with_lines_that_cannot_be_read_says_so_and_by_its_exit_code(tmp_path: Path) -> None:
    result = train_report(TrainReport(run=str(hostile_run(tmp_path / "run"))))
    assert result.exit_code == 1
    assert result.problems == ["metrics.jsonl: 1 line cannot be read"]
    assert train_report(TrainReport(run=str(make_run(tmp_path / "good")))).exit_code == 0


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no metrics\.jsonl"):
        train_report(TrainReport(run=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_a_long_run_of_many_ranks_is_a_small_file(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=5_000, ranks=8)
    assert train_report(TrainReport(run=str(folder))).bytes < 600_000
