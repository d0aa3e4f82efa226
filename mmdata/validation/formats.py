"""A report for programs: JSON, JSON lines, and the annotations that GitHub shows in a change."""

from collections.abc import Iterator

import msgspec

from mmdata.validation.rules import RULES
from mmdata.wording import plural
from schemas.validation import Finding, ValidationReport

#: What GitHub's runner takes apart again (workflow commands).
_IN_TEXT = (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"))
_IN_PROPERTY = (*_IN_TEXT, (":", "%3A"), (",", "%2C"))


def as_json_lines(report: ValidationReport) -> Iterator[str]:
    """A line a finding, then one with all the rest: `{"type": "finding" | "report", ...}`."""
    for finding in report.findings:
        yield _line({"type": "finding", **msgspec.to_builtins(finding)})
    rest = msgspec.to_builtins(report)
    del rest["findings"]
    yield _line({"type": "report", **rest})


def as_github(report: ValidationReport) -> Iterator[str]:
    """Workflow commands: `::error file=...,title=TAR003::...` a finding, and a last notice."""
    for finding in report.findings:
        kind = RULES[finding.code].severity
        file, title = _escape(finding.shard, _IN_PROPERTY), _escape(finding.code, _IN_PROPERTY)
        yield f"::{kind} file={file},title={title}::{_escape(_text(finding), _IN_TEXT)}"
    total = (
        f"{plural(report.shards, 'shard')}: {plural(report.errors, 'error')}, "
        f"{plural(report.warnings, 'warning')}"
    )
    yield f"::notice title=mmdata validate::{total}"


def _text(finding: Finding) -> str:
    where = " ".join(part for part in (finding.key, finding.path) if part)
    meaning = RULES[finding.code].meaning
    return f"{meaning}: {where}: expected {finding.expected}, got {finding.got}"


def _escape(text: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for plain, escaped in pairs:
        text = text.replace(plain, escaped)
    return text


def _line(value: object) -> str:
    return msgspec.json.encode(value).decode()
