"""Reports for programs keep to their forms, whatever a hostile name holds."""

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.validation.findings import Findings
from mmdata.validation.formats import as_github, as_json_lines
from mmdata.validation.report import ReportBuilder, ValidationReport
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.conftest import ROOT
from tests.shard_factory import make_dataset

SCHEMA = json.loads((ROOT / "schemas/json/validation.schema.json").read_text(encoding="utf-8"))


def report_of(shard: str, got: str, code: str = "SIM001") -> ValidationReport:
    findings = Findings(shard, 9)
    findings.add(code, "2 rows", got, key="k", path="$.similarity_matrix")
    builder = ReportBuilder(9)
    builder.add(0, findings.counts, findings.kept)
    return builder.build("full", shards=1, samples=1, images=2, num_bytes=3)


def test_json_lines_are_findings_and_then_the_rest() -> None:
    lines = [json.loads(line) for line in as_json_lines(report_of("0.tar", "1"))]
    assert [line["type"] for line in lines] == ["finding", "report"]
    assert lines[0]["code"] == "SIM001"
    assert (lines[1]["errors"], lines[1]["exit_code"]) == (1, 1)
    assert "findings" not in lines[1]


def test_github_shows_errors_and_warnings_at_their_file() -> None:
    first, last = as_github(report_of("a/0.tar", "1"))
    assert first == (
        "::error file=a/0.tar,title=SIM001::the matrix has not one row for each image: "
        "k $.similarity_matrix: expected 2 rows, got 1"
    )
    assert last == "::notice title=mmdata validate::1 shard: 1 error, 0 warnings"
    assert next(as_github(report_of("0.tar", "1", "KEY005"))).startswith("::warning ")


@given(st.text(), st.text())
def test_no_name_can_write_a_command_of_its_own(shard: str, got: str) -> None:
    lines = list(as_github(report_of(f"0{shard}.tar", got)))
    assert len("\n".join(lines).splitlines()) >= 2
    assert all("\n" not in line and "\r" not in line for line in lines)
    properties = lines[0].removeprefix("::error ").partition("::")[0]
    assert properties.count(",") == 1


@pytest.mark.parametrize("options", [{}, {"forecast": True, "peer": "openflamingo"}], ids=str)
def test_a_report_fits_its_schema(tmp_path: Path, options: dict[str, object]) -> None:
    dataset = make_dataset(tmp_path)
    dataset.path(1, ".json").unlink()
    report = validate(Validate(shards=(str(tmp_path),), workers=0, **options))  # type: ignore[arg-type]
    value = json.loads(report.to_json())
    jsonschema.Draft202012Validator(SCHEMA).validate(value)
    assert value["counts"] != []
    assert (value["forecast"] is None) == (not options)
