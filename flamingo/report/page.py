"""The report of a training run as one HTML file; `mmdata.html.shell` seals it off.

It holds no time of its own making: the same folder gives the same bytes.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from flamingo.models.registry import FAMILY_OPTION, FIRST_FAMILY, options_type
from flamingo.report.hardware import gpus, hosts, memory
from flamingo.report.options import TrainReport
from flamingo.report.record import RunRecord, number, read_run
from flamingo.report.training import notices, overview, speed, training
from mmdata.html import numbers
from mmdata.html.markup import Markup, element, shortened
from mmdata.html.shell import asset, page
from mmdata.html.table import table
from mmdata.report.sections import section
from mmdata.storage.atomic import write_atomically
from mmdata.wording import plural

REPORT_NAME = "report.html"
_SECTIONS = {
    "overview": "Overview",
    "training": "Training",
    "speed": "Speed",
    "memory": "Memory",
    "gpus": "GPUs",
    "hosts": "Hosts",
    "events": "Events",
    "configuration": "Configuration",
}
_MAX_EVENTS = 200
_MAX_CHARS = 200
#: Of an event, what is told in other columns.
_TOLD = frozenset(("step", "event", "time"))


@dataclass(frozen=True, slots=True)
class TrainReportResult:
    """What was written.

    Attributes:
        path: of the page.
        bytes: of it.
        steps: that it shows.
        problems: what is not in its figures.
    """

    path: str
    bytes: int
    steps: int
    problems: list[str]

    @property
    def exit_code(self) -> int:
        """0, or 1 where files could not be read whole."""
        return 1 if self.problems else 0


def train_report(options: TrainReport) -> TrainReportResult:
    """Write the report of a run; of one that goes on as well.

    Raises:
        UserError: the folder holds no run.
        OSError: the page cannot be written.
    """
    record = read_run(options.run)
    title = options.title or os.path.basename(os.path.abspath(options.run))
    content = render(record, title)
    path = options.output or os.path.join(options.run, REPORT_NAME)
    write_atomically(path, content)
    return TrainReportResult(path, len(content), len(record.steps), record.problems)


def render(record: RunRecord, title: str) -> bytes:
    """The page, as UTF-8."""
    ranks = max(1, len(record.ranks))
    return page(
        notices(record),
        overview(record),
        training(record),
        speed(record),
        memory(record),
        gpus(record),
        hosts(record),
        events(record),
        configuration(record),
        title=title,
        kind="Training report",
        about=f"{numbers.plural(len(record.steps), 'step')} · {numbers.plural(ranks, 'rank')}",
        sections=_SECTIONS,
        made_by="mmdata train-report",
        styles=(asset("curves.css", "flamingo.report"),),
    )


def events(record: RunRecord) -> Markup:
    """What happened, in order; of many, the last."""
    if not record.events:
        text = "Nothing happened but steps."
        return section("events", "Events", element("p", text, class_="muted"))
    rows = []
    for event in record.events[-_MAX_EVENTS:]:
        details = {name: value for name, value in event.items() if name not in _TOLD}
        told = ", ".join(f"{name} {_words(value)}" for name, value in details.items())
        kind = str(event.get("event", ""))
        rows.append(
            element(
                "tr",
                element("th", numbers.count(number(event, "step") or 0), scope="row"),
                element("td", _chip(kind)),
                element("td", shortened(told, _MAX_CHARS)),
            )
        )
    shown = table("Events", ("step", "event", "what"), rows)
    left_out = len(record.events) - len(rows)
    more = f"The last {_MAX_EVENTS} of {len(record.events):,}." if left_out else None
    return section(
        "events",
        "Events",
        element("p", more, class_="lead") if more else None,
        element("div", shown, class_="panel"),
    )


def configuration(record: RunRecord) -> Markup:
    """What was set, and behind it all options of the run."""
    if not record.options:
        text = element("p", "The folder holds no options.json.", class_="muted")
        return section("configuration", "Configuration", text)
    family = record.options.get(FAMILY_OPTION, FIRST_FAMILY)
    plain = {FAMILY_OPTION: FIRST_FAMILY} | {
        column.name: column.default for column in fields(options_type(family))
    }
    changed = {
        name: value
        for name, value in record.options.items()
        if name not in plain or json.dumps(plain[name], default=str) != json.dumps(value)
    }
    everything = element(
        "details",
        element("summary", f"All {plural(len(record.options), 'option')}"),
        _options("All options", record.options),
    )
    return section(
        "configuration",
        "Configuration",
        element("p", "What is not at its default.", class_="lead"),
        element("div", _options("Options that were set", changed), class_="panel options"),
        everything,
    )


def _options(caption: str, options: Mapping[str, object]) -> Markup:
    rows = [
        element(
            "tr",
            element("th", element("code", shortened(str(name), 60)), scope="row"),
            element("td", element("code", shortened(_words(value), _MAX_CHARS))),
        )
        for name, value in sorted(options.items())
    ]
    return table(caption, ("option", "value"), rows)


def _chip(kind: str) -> Markup:
    bad = {"skipped": "chip bad", "preempted": "chip warn", "resumed": "chip warn"}
    return element("span", shortened(kind, 40), class_=bad.get(kind, "chip"))


def _words(value: object) -> str:
    """A value as a person writes it: no quotes around a word, four digits of a number."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(inner)}" for name, inner in value.items())
    return json.dumps(value)
