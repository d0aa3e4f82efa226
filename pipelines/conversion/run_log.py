"""`--log-json FILE`: what a run does, as JSON lines that another program can follow.

A line is written when something is known for good: a shard is committed, a unit fails. What a shard
dropped is told with it, from its rejects, so that no line is about work that a crash took back. A
resume appends to the same file. Progress comes at most once a second. What a killed run committed
and could not write down any more stands in the sidecars and rejects only.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, Any

import msgspec

from mmdata.errors import UserError
from mmdata.shards.naming import REJECTS, TAR, shard_stem
from mmdata.storage.files import read_bytes
from mmdata.storage.urls import is_url
from pipelines.conversion.dedupe import standing
from pipelines.conversion.plan import ConversionPlan
from pipelines.conversion.result import ConversionResult
from pipelines.conversion.task import UnitTask
from pipelines.engine.events import Tick, UnitAgain, UnitDone, UnitFailure
from schemas.reasons import DocumentDrop

_PROGRESS_SECONDS = 1.0


class RunLog:
    """The lines of one run; without a file, nothing is done."""

    def __init__(self, file: IO[str] | None) -> None:
        self._file = file
        self._start = self._last = time.monotonic()
        self._told: set[int] = set()
        self._sums = {"records": 0, "images": 0, "image_bytes": 0, "dropped": 0}

    def write(self, event: str, **facts: Any) -> None:
        """One line: when, what, and its facts."""
        if self._file is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._file.write(json.dumps({"time": now, "event": event, **facts}) + "\n")
        self._file.flush()

    def tell(self, plan: ConversionPlan, task: UnitTask[Any], event: object) -> None:
        """An event of a unit."""
        if self._file is None:
            return
        if isinstance(event, Tick):
            self._advance(event)
        elif isinstance(event, UnitFailure):
            self._shards(plan, task)
            self.write("failure", unit=task.unit.label, error=event.error)
        elif isinstance(event, UnitAgain):
            label = task.unit.label
            self.write("again", unit=label, why=event.why, detail=event.detail)
        elif isinstance(event, UnitDone):
            self._shards(plan, task)

    def tell_rest(self, plan: ConversionPlan, tasks: Sequence[UnitTask[Any]]) -> None:
        """The shards of units that were interrupted, as far as they stand."""
        if self._file is not None:
            for task in tasks:
                self._shards(plan, task)

    def end(self, result: ConversionResult) -> None:
        """What the run came to."""
        self.write(
            "end",
            exit_code=result.exit_code,
            complete=result.complete,
            shards_written=result.shards_written,
            shards_kept=result.shards_kept,
            shards_left=result.shards_left,
            seconds=round(result.seconds, 3),
            totals=msgspec.to_builtins(result.tally),
        )

    def _advance(self, tick: Tick) -> None:
        for name in self._sums:
            self._sums[name] += getattr(tick, name)
        now = time.monotonic()
        if now - self._last >= _PROGRESS_SECONDS:
            self._last = now
            self.write("progress", seconds=round(now - self._start, 3), **self._sums)

    def _shards(self, plan: ConversionPlan, task: UnitTask[Any]) -> None:
        """The unit's shards that stand, and what each of them dropped."""
        for shard in task.shards:
            sidecar = standing(plan, task.output, shard)
            if sidecar is None or shard in self._told:
                continue
            self._told.add(shard)
            tally = sidecar.tally
            self.write(
                "shard",
                shard=sidecar.shard,
                records=tally.records,
                documents=tally.documents,
                images=tally.images,
                bytes=sidecar.bytes,
                draft=sidecar.fingerprint != plan.fingerprint,
                documents_dropped=tally.documents_dropped,
                images_dropped=tally.images_dropped,
                notes=tally.notes,
                other_splits=tally.other_splits,
            )
            self._rejects(task.output, shard)

    def tell_duplicates(self, plan: ConversionPlan, output: str) -> None:
        """The documents that were dropped from drafts."""
        if self._file is None:
            return
        for shard in range(plan.num_shards):
            sidecar = standing(plan, output, shard)
            dropped = sidecar.tally.documents_dropped if sidecar else {}
            if DocumentDrop.DUPLICATE_DOCUMENT in dropped:
                self._rejects(output, shard, only=DocumentDrop.DUPLICATE_DOCUMENT)

    def _rejects(self, output: str, shard: int, only: str = "") -> None:
        stem = shard_stem(shard)
        for line in read_bytes(os.path.join(output, stem + REJECTS)).splitlines():
            reject = json.loads(line)
            if not only or reject["reason"] == only:
                self.write("reject", shard=stem + TAR, **reject)


@contextmanager
def open_log(path: str | None) -> Iterator[RunLog]:
    """The log of a run, appended to a file.

    Raises:
        UserError: the file cannot be written to.
    """
    if path is None:
        yield RunLog(None)
        return
    if is_url(path):
        raise UserError(f"--log-json {path}: lines are appended to a local file only")
    try:
        file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UserError(f"--log-json {path}: cannot be written: {error.strerror}") from error
    with file:
        yield RunLog(file)
