"""`--dedupe exact`: of documents with equal sentences and images, only the first of the run stays.

That is known only when every shard is there, so shards are first committed as *drafts* (under a
fingerprint of their own) and finished afterwards: shards with later duplicates are written anew
without them, the others get a new sidecar only. A kill in between costs nothing but repetition: the
first of equals is in no finished shard missing, so what is found again is the same, and the bytes
depend on the input alone. Costs one read of the samples tables (2 ms a shard), 24 bytes a document
of unnamed temporary file, 240 MB of memory and 16 bytes a duplicate.
"""

import hashlib
import os
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from math import inf
from typing import IO

import numpy as np
from numpy.typing import NDArray

from mmdata.shards.naming import KEY_DIGITS, SAMPLES, shard_stem
from mmdata.shards.reader import read_samples_table
from mmdata.storage.urls import is_url
from pipelines.conversion.dedupe_shards import Duplicate, FinishTask, finish_shards
from pipelines.conversion.output import committed, forget_manifest, lacks_images
from pipelines.conversion.output_files import OutputFiles, look_at
from pipelines.conversion.plan import ConversionPlan
from pipelines.engine.events import UnitFailure
from pipelines.engine.run_units import choose_workers, run_units
from schemas.manifest import Sidecar
from schemas.reasons import DocumentDrop

#: Documents that are compared at a time: 66 bytes each while they are sorted.
PARTITION_DOCUMENTS = 3_500_000
_SHARDS_A_TASK = 16
#: From so many shards on that must be written anew, workers are worth it.
_WORKERS_FROM = 64
_ROW = np.dtype([("first", "<u8"), ("second", "<u8"), ("ordinal", "<u8")])

Rows = NDArray[np.void]
Ordinals = NDArray[np.uint64]


def draft_fingerprint(plan: ConversionPlan) -> str:
    """What shards carry before duplicates are dropped; the plan's own where none are."""
    if plan.options.get("dedupe", "none") == "none":
        return plan.fingerprint
    return hashlib.sha256(f"draft of {plan.fingerprint}".encode()).hexdigest()


def standing(
    plan: ConversionPlan,
    output: str,
    shard: int,
    *,
    verify: bool = False,
    files: OutputFiles | None = None,
) -> Sidecar | None:
    """The sidecar of a shard that exists, finished or as a draft; arguments as of `committed`."""
    found = committed(output, shard, plan.fingerprint, verify=verify, files=files)
    draft = draft_fingerprint(plan)
    if found is None and draft != plan.fingerprint:
        found = committed(output, shard, draft, verify=verify, files=files)
    return found


def must_refresh(sidecar: Sidecar) -> bool:
    """Whether images that have come since could change a shard: also by changing a duplicate."""
    dropped = sidecar.tally.documents_dropped.get(DocumentDrop.DUPLICATE_DOCUMENT, 0)
    return lacks_images(sidecar) or dropped > 0


def finish_drafts(
    plan: ConversionPlan,
    output: str,
    lease_path: str,
    run: str,
    key_prefix: str,
    *,
    workers: int | None,
    ray_address: str | None = None,
    stall_seconds: float = 0.0,
) -> list[tuple[str, UnitFailure]]:
    """Drop later duplicates from the shards, once all of them stand; (shard, failure) if any.

    Args:
        plan: of the run.
        output: its folder.
        lease_path: of the lease on it.
        run: that holds the lease.
        key_prefix: of sample keys.
        workers: as asked for; many shards are written anew by as many.
        ray_address: of a cluster that does it.
        stall_seconds: patience with a worker.
    """
    if draft_fingerprint(plan) == plan.fingerprint:
        return []
    there = look_at(output)
    sidecars = [standing(plan, output, shard, files=there) for shard in range(plan.num_shards)]
    if any(sidecar is None for sidecar in sidecars):
        return []
    drafts = [
        shard
        for shard, sidecar in enumerate(sidecars)
        if sidecar is not None and sidecar.fingerprint != plan.fingerprint
    ]
    if not drafts:
        return []
    forget_manifest(output)
    documents = sum(sidecar.tally.documents for sidecar in sidecars if sidecar is not None)
    dropped, firsts = find_duplicates(output, plan.num_shards, documents)
    starts = np.array([s.first_ordinal for s in sidecars if s is not None], np.uint64)
    homes = np.searchsorted(starts, dropped, "right") - 1
    chunks = [drafts[at : at + _SHARDS_A_TASK] for at in range(0, len(drafts), _SHARDS_A_TASK)]
    tasks = [
        FinishTask(
            output=output,
            lease_path=lease_path,
            run=run,
            draft=draft_fingerprint(plan),
            fingerprint=plan.fingerprint,
            key_prefix=key_prefix,
            shards=tuple(chunk),
            duplicates=tuple(_of(shard, homes, dropped, firsts) for shard in chunk),
        )
        for chunk in chunks
    ]
    if len(np.unique(homes)) < _WORKERS_FROM:
        return _finish(tasks, workers=0, ray_address=None, stall_seconds=0.0)
    workers = choose_workers(workers, inf, ray_address)
    return _finish(tasks, workers=workers, ray_address=ray_address, stall_seconds=stall_seconds)


def _finish(
    tasks: Sequence[FinishTask], *, workers: int, ray_address: str | None, stall_seconds: float
) -> list[tuple[str, UnitFailure]]:
    """Run the tasks; what failed."""
    failures = []
    events = run_units(
        finish_shards,
        tasks,
        workers=workers,
        ray_address=ray_address,
        stall_seconds=stall_seconds,
    )
    with closing(events):
        for index, event in events:
            if isinstance(event, UnitFailure):
                failures.append((f"shards from {shard_stem(tasks[index].shards[0])}", event))
    return failures


def _of(
    shard: int, homes: NDArray[np.int64], dropped: Ordinals, firsts: Ordinals
) -> tuple[Duplicate, ...]:
    """The duplicates of one shard; `homes` is sorted."""
    begin, end = np.searchsorted(homes, shard, "left"), np.searchsorted(homes, shard, "right")
    pairs = zip(dropped[begin:end].tolist(), firsts[begin:end].tolist(), strict=True)
    return tuple(Duplicate(ordinal, first) for ordinal, first in pairs)


def find_duplicates(output: str, num_shards: int, documents: int) -> tuple[Ordinals, Ordinals]:
    """Ordinals of documents that were there before, sorted, and of the first ones they equal.

    Args:
        output: folder of the shards.
        num_shards: in it.
        documents: that they hold, to decide how many partitions fit in memory.
    """
    partitions = max(1, -(-documents // PARTITION_DOCUMENTS))
    dropped, firsts = array("Q"), array("Q")
    with ExitStack() as stack:
        # Unnamed files: gone with the process, however it ends.
        folder = None if is_url(output) else output
        files = [stack.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(partitions)]
        for shard in range(num_shards):
            _spread(np.fromiter(digests(output, shard), _ROW), files)
        for file in files:
            file.seek(0)
            later, first = _later_ones(np.frombuffer(file.read(), _ROW))
            dropped.frombytes(later.tobytes())
            firsts.frombytes(first.tobytes())
            file.truncate(0)
    ordinals = np.frombuffer(dropped, np.uint64)
    order = np.argsort(ordinals, kind="stable")
    return ordinals[order], np.frombuffer(firsts, np.uint64)[order]


def digests(output: str, shard: int) -> Iterator[tuple[int, int, int]]:
    """A 128-bit digest, in two halves, of each document of a shard, and its ordinal."""
    path = os.path.join(output, shard_stem(shard) + SAMPLES)
    columns = read_samples_table(path, ["key", "text_sha256", "image_sha256"])
    for key, text, images in zip(*columns.values(), strict=True):
        whole = hashlib.blake2b("".join([text, *images]).encode(), digest_size=16).digest()
        yield (
            int.from_bytes(whole[:8], "little"),
            int.from_bytes(whole[8:], "little"),
            int(key[-KEY_DIGITS:]),
        )


def _spread(rows: Rows, files: Sequence[IO[bytes]]) -> None:
    """Append rows to the file of their partition; the order of input is kept in each."""
    for number, file in enumerate(files):
        file.write(rows[rows["second"] % np.uint64(len(files)) == number].tobytes())


def _later_ones(rows: Rows) -> tuple[Ordinals, Ordinals]:
    """(ordinal, ordinal of its first) of each row that equals one before it."""
    rows = rows[np.lexsort((rows["ordinal"], rows["second"], rows["first"]))]
    if not len(rows):
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    same = (rows["first"][1:] == rows["first"][:-1]) & (rows["second"][1:] == rows["second"][:-1])
    is_first = np.concatenate(([True], ~same))
    firsts = rows["ordinal"][np.maximum.accumulate(np.where(is_first, np.arange(len(rows)), 0))]
    return rows["ordinal"][~is_first], firsts[~is_first]
