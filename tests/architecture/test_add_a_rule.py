"""The recipe "to add a validation rule" of docs/architecture.md, done once: no shouting.

A function and a row of the table of rules; validation asks it, the report names it, and
`--select` and `--ignore` know its code.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mmdata.validation.documents import Parsed, Problem
from mmdata.validation.rules import RULES, Rule
from pipelines.validate.options import Validate
from pipelines.validate.print import print_report
from pipelines.validate.run import validate
from schemas.validation import ValidationReport
from tests.shard_factory import Dataset, make_document


def no_shouting(parsed: Parsed) -> Iterator[Problem]:
    for number, text in enumerate(parsed.document.text_list):
        if text.isupper():
            yield f"$.text_list[{number}]", "words in small letters", repr(text)


TOY = Rule(
    code="TOY001",
    severity="warning",
    level="content",
    meaning="a sentence is written in capitals",
    remedy="say it more quietly",
    check=no_shouting,
    breaks="nothing",
)


@pytest.fixture
def shouting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(RULES, TOY.code, TOY)
    return _shards(tmp_path)


def _shards(folder: Path) -> str:
    loud = make_document(0)
    loud["text_list"][1] = "LOOK AT THIS!"
    Dataset(folder, [[loud, make_document(1)]]).write()
    return str(folder)


def check(shards: str, **more: object) -> ValidationReport:
    return validate(Validate(shards=(shards,), workers=0, **more))  # type: ignore[arg-type]


def test_a_row_of_the_table_makes_a_rule(shouting: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = check(shouting)
    (finding,) = [one for one in report.findings if one.code == "TOY001"]
    assert (finding.path, finding.got) == ("$.text_list[1]", "'LOOK AT THIS!'")
    assert {one.code for one in report.findings} == {"TOY001"}
    assert report.exit_code == 0
    (count,) = report.counts
    assert (count.code, count.meaning, count.remedy) == (TOY.code, TOY.meaning, TOY.remedy)
    print_report(report)
    assert TOY.code in capsys.readouterr().out


def test_it_can_be_chosen_and_made_to_fail_the_run(shouting: str) -> None:
    assert check(shouting, fail_on="warning").exit_code == 1
    assert check(shouting, fail_on="warning", ignore=("TOY",)).exit_code == 0


def test_without_the_row_nothing_is_found(tmp_path: Path) -> None:
    assert check(_shards(tmp_path), fail_on="warning").exit_code == 0
