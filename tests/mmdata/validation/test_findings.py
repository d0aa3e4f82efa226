"""Findings, the table of rules, and the report that is made of them."""

import io
import json
import re

import pytest
from rich.console import Console

from mmdata.validation import rules
from mmdata.validation.findings import Finding, Findings, printable, shorten
from mmdata.validation.render import render
from mmdata.validation.report import ReportBuilder, ValidationReport
from mmdata.validation.rules import RULES


def report_of(*findings: Findings, max_findings: int = 100) -> ValidationReport:
    builder = ReportBuilder(max_findings)
    for place, each in reversed(list(enumerate(findings))):  # as workers may hand them in
        builder.add(place, each.counts, each.kept)
    return builder.build("full", shards=len(findings), samples=1, images=2, num_bytes=3)


def findings_of(shard: str, *codes: str) -> Findings:
    findings = Findings(shard, 100)
    for number, code in enumerate(codes):
        findings.add(code, "this", "that", key=f"k{number}")
    return findings


def test_codes_are_unique_and_in_one_form() -> None:
    assert len(RULES) == len(rules._ROWS)
    assert all(re.fullmatch(r"[A-Z]+[0-9]{3}|B64[0-9]{3}", rule.code) for rule in RULES.values())
    assert all(rule.meaning and rule.remedy and len(rule.meaning) <= 70 for rule in RULES.values())


def test_a_finding_of_no_rule_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Findings("s", 1).add("XXX999", "a", "b")


def test_a_finding_as_text() -> None:
    finding = Finding(shard="0.tar", key="k", path="$.a", code="SIM001", expected="2 rows", got="1")
    assert str(finding) == "SIM001 expected 2 rows, got 1 - at `$.a` (0.tar k)"


def test_all_are_counted_and_the_first_are_kept() -> None:
    findings = Findings("s", 2)
    for number in range(5):
        findings.add("SIM001", "a", str(number))
    assert findings.counts == {"SIM001": 5}
    assert [finding.got for finding in findings.kept] == ["0", "1"]


def test_text_cannot_act_on_a_terminal() -> None:
    assert printable("a\x1b[2Jb\n\u202e") == "a\\x1b[2Jb\\n\\u202e"
    assert printable("é 图 ok") == "é 图 ok"
    assert len(shorten("x" * 999)) == 200


def test_the_report_does_not_depend_on_the_order_of_workers() -> None:
    one, two = findings_of("1.tar", "SIM001", "KEY005"), findings_of("2.tar", "SIM001")
    report = report_of(one, two)
    assert [finding.shard for finding in report.findings] == ["1.tar", "1.tar", "2.tar"]
    assert [(c.code, c.findings, c.shards) for c in report.counts] == [
        ("SIM001", 2, 2),
        ("KEY005", 1, 1),
    ]
    assert (report.errors, report.warnings, report.exit_code) == (2, 1, 1)


def test_the_report_keeps_the_first_of_each_rule_over_all_shards() -> None:
    shards = [findings_of(f"{number}.tar", "SIM001", "SIM001") for number in range(50)]
    report = report_of(*shards, max_findings=3)
    assert [f.shard for f in report.findings] == ["0.tar", "0.tar", "1.tar"]
    assert report.counts[0].findings == 100


def test_what_fails_the_run_is_asked_for() -> None:
    for fail_on, exit_code in (("error", 0), ("warning", 1)):
        builder = ReportBuilder(9, None, fail_on)  # type: ignore[arg-type]
        findings = findings_of("1.tar", "KEY005")
        builder.add(0, findings.counts, findings.kept)
        report = builder.build("full", shards=1, samples=1, images=2, num_bytes=3)
        assert (report.warnings, report.exit_code) == (1, exit_code)


def test_rules_that_do_not_count_leave_no_trace() -> None:
    builder = ReportBuilder(9, {"SIM001"})
    findings = findings_of("1.tar", "SIM001", "SIM002")
    builder.add(0, findings.counts, findings.kept)
    report = builder.build("full", shards=1, samples=1, images=2, num_bytes=3)
    assert [count.code for count in report.counts] == ["SIM001"]
    assert [finding.code for finding in report.findings] == ["SIM001"]


def test_warnings_alone_exit_0() -> None:
    assert report_of(findings_of("1.tar", "KEY005")).exit_code == 0
    assert report_of().exit_code == 0


def test_json_has_a_version_and_the_exit_code() -> None:
    value = json.loads(report_of(findings_of("1.tar", "SIM001")).to_json())
    assert value["schema_version"] == "1"
    assert value["exit_code"] == 1
    assert value["counts"][0]["meaning"] == RULES["SIM001"].meaning


def test_text_is_one_line_a_finding_a_table_and_a_verdict() -> None:
    sink = io.StringIO()
    findings = Findings("[red]0.tar", 100)
    findings.add("SIM001", "2 rows", "1", key="k", path="$.similarity_matrix")
    render(report_of(findings), Console(file=sink, width=150))
    lines = sink.getvalue().splitlines()
    assert lines[0] == "[red]0.tar k $.similarity_matrix SIM001 expected 2 rows, got 1"
    assert lines[1].split() == ["rule", "findings", "shards", "meaning", "remedy"]
    assert lines[-1] == ("1 shard, 1 sample, 2 images, 3 bytes at level full: 1 error, 0 warnings")
