"""A row of convert-laion on its way through a unit, and how it sets out: parsed and filtered."""

from dataclasses import dataclass, replace
from typing import Protocol

from mmdata.fetch.outcome import Fetched
from mmdata.samples.assemble import AssemblyPolicy, Draft, Outcome
from mmdata.sources.base import RecordDropped
from mmdata.sources.laion_rows import LaionRow, PairSource, RowFilters, check_filters, parse_row
from mmdata.sources.split import URL_HOST, group_of, host_of


@dataclass(slots=True)
class Place:
    """A row on its way.

    Attributes:
        place: in the unit.
        key: of its sample.
        pair: None where the row was dropped, or its sample is held already.
        drop: why it was dropped before anything was asked.
        held: what became of it stands.
        fetched: how its download ended; None where nothing was asked.
        draft: its checked picture.
    """

    place: int
    key: str
    pair: PairSource | None = None
    drop: Outcome | None = None
    held: bool = False
    fetched: Fetched | None = None
    draft: Draft | None = None

    @property
    def url(self) -> str | None:
        """What is to be fetched; None where nothing is."""
        return self.pair.url if self.pair is not None and not self.pair.row.has_image else None


class RowJob(Protocol):
    """What is asked of rows."""

    @property
    def filters(self) -> RowFilters:
        """That a row has to pass before anything is fetched."""
        ...

    @property
    def policy(self) -> AssemblyPolicy:
        """What stays together, and the split that is being written."""
        ...


def parsed(number: int, key: str, row: LaionRow | RecordDropped, job: RowJob) -> Place:
    """A row as a pair, or why it is none; of another split, nothing more is asked of it.

    Args:
        number: its place in the unit.
        key: of its sample.
        row: as read.
        job: what is asked of it.
    """
    placed = False
    try:
        if isinstance(row, RecordDropped):
            raise row
        pair = parse_row(row)
        if (grouping := job.policy.grouping) is not None:
            pair.document = replace(pair.document, group=group_of_pair(pair, grouping.by))
        if (split := job.policy.split) is not None and not split.holds(pair.document):
            return Place(number, key, drop=Outcome(elsewhere=True))
        placed = True
        check_filters(row, job.filters)
    except RecordDropped as dropped:
        drop = Outcome(drop=(dropped.reason, dropped.detail), placed=placed)
        return Place(number, key, drop=drop)
    return Place(number, key, pair)


def group_of_pair(pair: PairSource, by: str) -> str | None:
    """The group of a row by any of its columns, or by the host of the URL of its picture."""
    if by == URL_HOST:
        return host_of(image.fields.get("raw_url") for image in pair.document.images)
    return group_of(pair.document, pair.row.values, by)
