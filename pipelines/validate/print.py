"""Print what a validation found, in the form that was asked for."""

import sys
from collections.abc import Iterable

from rich.console import Console

from mmdata.forecast.render import render_forecast, render_peer
from mmdata.validation.formats import as_github, as_json_lines
from mmdata.validation.render import render
from pipelines.validate.options import ReportFormat
from schemas.validation import ValidationReport


def print_report(report: ValidationReport, form: ReportFormat = "table") -> None:
    """Print a report to standard output.

    Args:
        report: to print.
        form: `table` for people, `json`, `jsonl` or `github` for programs.
    """
    if form == "json":
        sys.stdout.write(report.to_json())
    elif form == "jsonl":
        _write(as_json_lines(report))
    elif form == "github":
        _write(as_github(report))
    else:
        console = Console(highlight=False)
        render(report, console)
        if report.forecast is not None:
            render_forecast(report.forecast, console)
        if report.peer is not None:
            render_peer(report.peer, console)


def _write(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
