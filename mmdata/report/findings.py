"""The section on what the validator found, by rule."""

from collections.abc import Sequence

from mmdata.html import numbers
from mmdata.html.markup import Markup, element, shortened
from mmdata.html.table import table
from mmdata.report.contents import Contents
from mmdata.report.sections import section
from schemas.validation import Finding, RuleCount

_MAX_FINDINGS = 10  # shown of each rule
_MAX_CHARS = 400


def findings(contents: Contents) -> Markup:
    """What the validator found, by rule."""
    report = contents.findings
    if report is None:
        text = element("p", "Not looked for (--check none).", class_="muted")
        return section("findings", "Findings", text)
    lead = (
        f"mmdata validate --level {report.level}, {numbers.plural(report.shards, 'shard')}. "
        "Errors fail a validation, warnings do not."
    )
    if not report.counts:
        clean = element("p", "Nothing was found.", class_="good panel padded")
        return section("findings", "Findings", element("p", lead, class_="lead"), clean)
    shown: dict[str, list[Finding]] = {}
    for finding in report.findings:
        shown.setdefault(finding.code, []).append(finding)
    rows = [_rule_row(rule, shown.get(rule.code, [])) for rule in report.counts]
    heads = ("rule", "severity", "!findings", "!shards", "meaning and remedy")
    return section(
        "findings",
        "Findings",
        element("p", lead, class_="lead"),
        element("div", table("Findings by rule", heads, rows), class_="panel"),
    )


def _rule_row(rule: RuleCount, shown: Sequence[Finding]) -> Markup:
    lines = [element("li", _finding_line(finding)) for finding in shown[:_MAX_FINDINGS]]
    more = rule.findings - len(lines)
    if more > 0:
        lines.append(element("li", f"and {more:,} more: mmdata validate lists them"))
    first = min(len(shown), _MAX_FINDINGS)
    detail = element(
        "details",
        element("summary", f"The first {first}" if more > 0 else "Where"),
        element("ul", lines, class_="plain"),
    )
    return element(
        "tr",
        element("th", element("code", rule.code), scope="row"),
        element("td", element("span", rule.severity, class_=f"chip {_severity(rule.severity)}")),
        element("td", numbers.count(rule.findings), class_="num"),
        element("td", numbers.count(rule.shards), class_="num"),
        element(
            "td",
            rule.meaning,
            element("div", f"remedy: {rule.remedy}", class_="muted"),
            detail if shown else None,
        ),
    )


def _severity(name: str) -> str:
    """A class of the style sheet; never what a file says."""
    return "bad" if name == "error" else "warn"


def _finding_line(finding: Finding) -> str:
    where = " ".join(part for part in (finding.shard, finding.key, finding.path) if part)
    return shortened(f"{where}: expected {finding.expected}, got {finding.got}", _MAX_CHARS)
