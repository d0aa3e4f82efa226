"""Whether a run's records are of the form that is read; asked before anything is written.

A record that is dropped for its form says nothing of missing images or filters: it is not of the
format at all. Where that holds for every one of a run's first hundred records, the run is refused
with three of them and what they look like. Where it turns out at the end to hold for every record
of an input, that input is named. Which reasons are of the form is `FORM_DROPS`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

from mmdata.errors import BadInputError
from mmdata.sources.near_formats import near_format
from pipelines.conversion.job import ConversionJob, FormFault
from pipelines.conversion.plan import PlanInput
from schemas.manifest import Tally
from schemas.reasons import FORM_DROPS

#: Records that are looked at, and those of them that are shown.
PROBED_RECORDS = 100
_SHOWN = 3


def check_form(job: ConversionJob, inputs: Sequence[PlanInput], *, hidden: bool) -> None:
    """Refuse a run whose first records all fail for their form.

    Args:
        job: how records become samples.
        inputs: in their order.
        hidden: details of records are not to be told.

    Raises:
        BadInputError: with three of the records, and what they look like.
    """
    faults: list[tuple[str, FormFault]] = []
    for where, fault in islice(_first_records(job, inputs), PROBED_RECORDS):
        if fault is None or fault.dropped.reason not in FORM_DROPS:
            return
        faults.append((where, fault))
    if faults:
        raise BadInputError(_refusal(job.kind, faults, hidden=hidden))


def _first_records(
    job: ConversionJob, inputs: Sequence[PlanInput]
) -> Iterator[tuple[str, FormFault | None]]:
    """Every record of a run in order, with its place."""
    for entry in inputs:
        number, member = 0, ""
        for segment in entry.segments:
            if segment.member != member:
                number, member = 0, segment.member
            with closing(job.forms(segment)) as forms:  # type: ignore[type-var]
                for fault in forms:
                    yield f"{segment.label}: record {number}", fault
                    number += 1


def _refusal(kind: str, faults: Sequence[tuple[str, FormFault]], *, hidden: bool) -> str:
    counts = Counter(fault.dropped.reason.value for _, fault in faults)
    told = ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())
    which = f"first {len(faults)}" if len(faults) == PROBED_RECORDS else f"{len(faults)}"
    lines = [f"none of the {which} records can be read ({told}), so nothing was written"]
    for where, fault in faults[:_SHOWN]:
        detail = "" if hidden else f": {fault.dropped.detail[:300]}"
        lines.append(f"{where}: {fault.dropped.reason}{detail}")
    hints = (near_format(kind, fault.fields, fault.dropped) for _, fault in faults)
    lines += islice(dict.fromkeys(filter(None, hints)), _SHOWN)
    return "\n  ".join(lines)


@dataclass(frozen=True, slots=True)
class UnfitInput:
    """An input every record of which was dropped for its form.

    Attributes:
        name: as the plan tells it.
        records: that it has.
        reasons: how often each.
    """

    name: str
    records: int
    reasons: dict[str, int]


@dataclass(slots=True)
class FormTally:
    """Counts the shards of a run by input, to find those of which nothing was of the form."""

    _counts: dict[str, Counter[str]] = field(default_factory=dict)
    _others: set[str] = field(default_factory=set)

    def add(self, name: str, tally: Tally) -> None:
        """Count a shard of an input in."""
        counts = self._counts.setdefault(name, Counter())
        counts.update(tally.documents_dropped)
        if tally.documents or tally.other_splits or not _all_of_form(tally):
            self._others.add(name)

    def add_missing(self, name: str) -> None:
        """A shard of an input is not there yet, so nothing is known of the whole."""
        self._others.add(name)

    def unfit(self) -> list[UnfitInput]:
        """The inputs of which every record was dropped for its form."""
        return [
            UnfitInput(name, counts.total(), dict(sorted(counts.items())))
            for name, counts in self._counts.items()
            if counts and name not in self._others
        ]


def _all_of_form(tally: Tally) -> bool:
    return all(reason in FORM_DROPS for reason in tally.documents_dropped)
