"""What a shard already holds, for a run that fetches again only what failed.

A row that did not fail keeps its sample, byte for byte, or its reason for having none: members,
row of the samples table, rejects and counts are copied. So a server that has gone since, or that
now sends something else, takes nothing away.
"""

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import msgspec

from mmdata.shards.naming import REJECTS, SAMPLES, TAR, shard_stem
from mmdata.shards.reader import ShardReader, read_samples_rows, samples_columns
from mmdata.shards.writer import ShardWriter
from mmdata.storage.files import read_bytes
from pipelines.conversion.counts import add_row, increment
from pipelines.conversion.dedupe_shards import copy_sample
from pipelines.downloads.outcomes import is_failed, outcomes_path, read_table
from schemas.manifest import Reject, Tally

_REJECT = msgspec.json.Decoder(Reject)


class HeldShard:
    """A committed shard; a context manager.

    Args:
        output: its folder.
        shard: its number.
    """

    def __init__(self, output: str, shard: int) -> None:
        stem = os.path.join(output, shard_stem(shard))
        self._outcomes = {row["key"]: row for row in read_table(outcomes_path(output, shard))}
        rows = read_samples_rows(stem + SAMPLES, samples_columns(stem + SAMPLES))
        self._rows = {row["key"]: row for row in rows}
        self._rejects: dict[str, list[Reject]] = {}
        for line in read_bytes(stem + REJECTS).splitlines():
            reject = _REJECT.decode(line)
            self._rejects.setdefault(reject.key, []).append(reject)
        self._reader = ShardReader(stem + TAR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._reader.close()

    def keeps(self, key: str) -> bool:
        """Whether what became of this row stands."""
        row = self._outcomes.get(key)
        return row is not None and not is_failed(row)

    def copy(self, key: str, writer: ShardWriter) -> dict[str, Any]:
        """Copy all that there is of a row into a new shard; returns its outcome."""
        row = self._rows.get(key)
        if row is not None:
            copy_sample(writer, self._reader, row)
        for reject in self._rejects.get(key, []):
            writer.reject(reject)
        count_held(writer.tally, row, self._rejects.get(key, []))
        return self._outcomes[key]


def count_held(tally: Tally, row: dict[str, Any] | None, rejects: list[Reject]) -> None:
    """Add a record's counts as they were when it was first converted."""
    tally.records += 1
    if row is not None:
        add_row(tally, row)
        tally.images_listed += len(row["matched"])
    for reject in rejects:
        for counts in _counts(tally, reject):
            increment(counts, reject.reason)
        tally.images_listed += reject.action == "dropped-image"


def _counts(tally: Tally, reject: Reject) -> Iterator[dict[str, int]]:
    yield {
        "dropped-document": tally.documents_dropped,
        "dropped-image": tally.images_dropped,
        "kept": tally.notes,
    }[reject.action]
