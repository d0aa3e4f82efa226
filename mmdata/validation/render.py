"""A report for people: one line a finding, then a table of the rules that were broken.

Text from shards reaches a terminal here. Findings hold printable characters only, and nothing is
read as rich's markup, so that a hostile name can neither colour nor clear the screen.
"""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmdata.validation.rules import RULES
from mmdata.wording import plural
from schemas.validation import AcrossReport, Finding, ValidationReport

_COLOURS = {"error": "bold red", "warning": "yellow"}


def render(report: ValidationReport, console: Console | None = None) -> None:
    """Print a report.

    Args:
        report: to print.
        console: where to; standard output by default.
    """
    console = console or Console(highlight=False)
    for finding in report.findings:
        console.print(line(finding), soft_wrap=True)
    kept = len(report.findings)
    found = report.errors + report.warnings
    if found > kept:
        more = f"... and {plural(found - kept, 'more finding')} of the rules above (--max-findings)"
        console.print(Text(more), soft_wrap=True)
    if report.counts:
        console.print(summary(report))
    if report.across is not None:
        console.print(Text(across_line(report.across)), soft_wrap=True)
    console.print(Text(verdict(report)), soft_wrap=True)


def line(finding: Finding) -> Text:
    """shard, key, path, code, expected, got."""
    colour = _COLOURS[RULES[finding.code].severity]
    text = Text()
    text.append(finding.shard)
    if finding.key:
        text.append(f" {finding.key}")
    if finding.path:
        text.append(f" {finding.path}")
    text.append(f" {finding.code}", style=colour)
    text.append(f" expected {finding.expected}, got {finding.got}")
    return text


def summary(report: ValidationReport) -> Table:
    """The rules that were broken, how often, and what to do."""
    table = Table(box=None, pad_edge=False)
    for heading in ("rule", "", "findings", "shards", "meaning", "remedy"):
        justify = "right" if heading in ("findings", "shards") else "left"
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for count in report.counts:
        table.add_row(
            Text(count.code, style=_COLOURS[count.severity]),
            count.severity,
            f"{count.findings:,}",
            f"{count.shards:,}",
            Text(count.meaning),
            Text(count.remedy),
        )
    return table


def across_line(across: AcrossReport) -> str:
    """What was compared across shards, and what came of it."""
    repeated = (
        f"across shards: {across.repeated_documents:,} of "
        f"{plural(across.documents, 'document')} and "
        f"{across.repeated_images:,} of {plural(across.images, 'image')} repeat; "
        f"{plural(across.leaked_documents, 'document')} and "
        f"{plural(across.leaked_images, 'image')} "
        "are in the "
        "other dataset"
    )
    if across.groups:
        repeated += f"; {across.leaked_groups:,} of {plural(across.groups, 'group')} are in it too"
    else:
        repeated += "; no groups are told (convert with --split-by)"
    if across.mean_similarity is None:
        return repeated
    return (
        f"{repeated}; mean similarity {across.mean_similarity:.3f}, of shards "
        f"{across.lowest_mean:.3f} to {across.highest_mean:.3f}"
    )


def render_rules(console: Console | None = None) -> None:
    """Print every rule there is."""
    table = Table(box=None, pad_edge=False)
    for heading in ("rule", "", "level", "meaning", "remedy"):
        table.add_column(heading)
    for rule in RULES.values():
        code = Text(rule.code, style=_COLOURS[rule.severity])
        table.add_row(code, rule.severity, rule.level, Text(rule.meaning), Text(rule.remedy))
    (console or Console(highlight=False)).print(table)


def verdict(report: ValidationReport) -> str:
    """One line: what was checked, and what came of it."""
    checked = (
        f"{plural(report.shards, 'shard')}, {plural(report.samples, 'sample')}, "
        f"{_images(report)}, {plural(report.bytes, 'byte')} at level {report.level}"
    )
    if not report.errors and not report.warnings:
        return f"{checked}: clean"
    return f"{checked}: {plural(report.errors, 'error')}, {plural(report.warnings, 'warning')}"


def _images(report: ValidationReport) -> str:
    if not report.uncounted:
        return plural(report.images, "image")
    if report.uncounted == report.shards:
        return "images not counted (--level content counts them)"
    without = plural(report.uncounted, "shard")
    return f"{plural(report.images, 'image')} (without those of {without})"
