"""The loop of a worker that writes one shard: fill it, tick, commit under the lease, or discard.

Whoever writes shards brings a generator that fills a `ShardWriter`; whatever it raises, and an
interruption, leaves nothing behind. `ShardHead` is what the shard's sidecar says beside that.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from mmdata.shards.groups import GroupLabel
from mmdata.shards.writer import ShardWriter
from mmdata.storage.lease import holds
from pipelines.conversion.counts import progress_of, span_of, ticked
from pipelines.conversion.plan import ConversionUnit
from pipelines.conversion.policy import group_label
from pipelines.conversion.task import UnitError, UnitTask
from pipelines.engine.events import Alive, RateLimit, Tick
from schemas.manifest import Kind, Layout, SourceSpan, Tally

Told = TypeVar("Told")
Record = TypeVar("Record")

#: Records between two ticks of progress.
TICK_RECORDS = 50


class WritesShards(Protocol):
    """What a task says of the run that its shards belong to."""

    @property
    def output(self) -> str:
        """Folder that the shards are written to."""
        ...

    @property
    def lease_path(self) -> str:
        """File of the lease on that folder."""
        ...

    @property
    def run(self) -> str:
        """Name of the run, which holds the lease unless another has taken over."""
        ...

    @property
    def fingerprint(self) -> str:
        """Fingerprint of inputs, options and versions."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardHead:
    """What is known of a shard before its samples are.

    Attributes:
        kind: of the conversion.
        first_ordinal: ordinal of its first record in the whole input.
        source: where its records come from.
        layout: of its samples.
        key_prefix: of its sample keys.
        groups: what its samples table says of groups; None where it tells none.
        energon: Energon's index is written with it.
        tally: counts to begin with; None for none.
    """

    kind: Kind
    first_ordinal: int
    source: list[SourceSpan]
    layout: Layout = "interleaved"
    key_prefix: str = ""
    groups: GroupLabel | None = None
    energon: bool = False
    tally: Tally | None = None


def head_of(task: UnitTask[Any], shard: int, layout: Layout = "interleaved") -> ShardHead:
    """What is known of a shard that a part of a unit becomes.

    Args:
        task: of the unit.
        shard: its number.
        layout: of its samples.
    """
    unit, job = task.unit, task.job
    begin, end = unit.places(shard)
    return ShardHead(
        kind=job.kind,
        first_ordinal=unit.first_ordinal + begin,
        source=[span_of(unit, begin, end - begin)],
        layout=layout,
        key_prefix=job.key_prefix,
        groups=group_label(job.policy),
        energon=task.energon,
    )


def write_shard(
    task: WritesShards,
    shard: int,
    head: ShardHead,
    fill: Callable[[ShardWriter], Iterator[Told | None]],
) -> Iterator[Tick | Told]:
    """Write one shard and commit it, with ticks of progress on the way.

    Args:
        task: the run that it belongs to.
        shard: its number.
        head: what is known of it before.
        fill: writes and counts its records; yields None after each, and what it has to tell.

    Raises:
        LeaseLostError: another run has taken over.
    """
    writer = ShardWriter(
        task.output, shard, key_prefix=head.key_prefix, energon=head.energon, groups=head.groups
    )
    writer.tally = head.tally or writer.tally
    last, count, limit = progress_of(writer.tally), 0, RateLimit()
    try:
        for told in fill(writer):
            if told is not None:
                yield told
                continue
            count += 1
            if count % TICK_RECORDS == 0 or limit.due():
                now = progress_of(writer.tally)
                yield ticked(last, now)
                last = now
        writer.commit(
            kind=head.kind,
            fingerprint=task.fingerprint,
            first_ordinal=head.first_ordinal,
            source=head.source,
            may_commit=lambda: holds(task.lease_path, task.run),
            layout=head.layout,
        )
    except BaseException:
        writer.discard()
        raise
    yield ticked(last, progress_of(writer.tally))


def pass_over(records: Iterator[Any], number: int) -> Iterator[Alive]:
    """Read on to where a missing shard begins, with signs of life on the way.

    Args:
        records: of the unit.
        number: how many are read and thrown away.
    """
    limit = RateLimit()
    for _ in islice(records, number):
        if limit.due():
            yield Alive()


def counted(
    records: Iterator[Record], expected: int, unit: ConversionUnit, begin: int
) -> Iterator[Record]:
    """Hand on the records of a shard.

    Args:
        records: of the unit, from the shard's first on.
        expected: how many of them are the shard's.
        unit: that they belong to.
        begin: place of the first in the unit.

    Raises:
        UnitError: there are fewer of them than when the run was planned.
    """
    count = 0
    for record in islice(records, expected):
        count += 1
        yield record
    if count != expected:
        raise UnitError(
            f"{unit.label}: {begin + count} records, {unit.num_records} were counted; it changed "
            "while the run was going: start again with --overwrite"
        )
