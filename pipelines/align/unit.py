"""What a worker does with one shard that is aligned: read, score, align, write, commit.

Images are carried over as they are; only an image that Pillow cannot decode (a conversion with
`--verify header` lets such pass) is dropped as unreadable, since it cannot be scored. What an
earlier conversion dropped stays in the rejects and the counts.
"""

import hashlib
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import pybase64

from mmdata.errors import BadInputError
from mmdata.images import ImagePolicy, ImageRejected
from mmdata.samples.assemble import AssemblyPolicy, Draft, Outcome, Picture, finish
from mmdata.shards.groups import read_label
from mmdata.shards.naming import KEY_DIGITS, REJECTS, SIDECAR, TAR, sample_key
from mmdata.shards.reader import ShardReader, read_samples_rows, samples_path
from mmdata.shards.writer import ShardWriter
from mmdata.sources.sample import ParsedSample, parse_sample
from mmdata.storage.files import read_bytes, size_of
from mmdata.versions import clip_versions, codec_versions
from pipelines.clip.backend import Scored
from pipelines.clip.drafts import ShardScorer
from pipelines.clip.model import ClipSpec, FrontEnd
from pipelines.conversion.counts import count_outcome, forget_note, progress_of, span_of_row
from pipelines.conversion.shard_job import ShardHead, write_shard
from pipelines.conversion.task import UnitError, UnitTask, check_versions, is_done
from pipelines.engine.events import Tick
from schemas.manifest import GROUP_COLUMNS, Reject, Sidecar, SourceSpan, Tally

_COLUMNS = [
    *("key", "sha256", "source_file", "source_member", "source_record"),
    *("image_bytes", "width", "height", "format", "image_sha256", "reencoded"),
]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AlignJob:
    """How shards are aligned.

    Attributes:
        clip: that scores.
        aligned: fingerprint of the conversion that is aligned.
        min_similarity: images below it are dropped; None keeps all.
        keep_text_only: keep documents that lose all their images.
    """

    clip: ClipSpec
    aligned: str
    min_similarity: float | None
    keep_text_only: bool


def align_unit(task: UnitTask[AlignJob]) -> Iterator[Tick | Scored]:
    """Write a shard's aligned twin.

    Raises:
        UnitError: the shard is not what it was when the run was planned, or is damaged.
    """
    check_versions(task, codec_versions() | clip_versions())
    shard = task.unit.first_shard
    if is_done(task, shard):
        return
    scorer = ShardScorer(task.job.clip, task.pool, shard)
    with _Source(task) as source:
        sidecar = source.sidecar
        head = ShardHead(
            kind=sidecar.kind,
            first_ordinal=sidecar.first_ordinal,
            source=sidecar.source,
            key_prefix=source.key_prefix,
            groups=source.groups,
            energon=task.energon,
            tally=source.dropped_before(),
        )
        yield from write_shard(task, shard, head, partial(_fill, source, scorer))
    yield scorer.report()


def _fill(source: "_Source", scorer: ShardScorer, writer: ShardWriter) -> Iterator[Tick | None]:
    """Score and write every sample, and the rejects of before where they belong."""
    yield progress_of(writer.tally)
    for sample, draft, scores in scorer.scored(source.drafts(scorer.front)):
        _add(writer, source, sample, finish(draft, scores))
        yield None
    for reject in source.rejects_up_to(None):
        writer.reject(reject)


@dataclass(frozen=True, slots=True)
class _Sample:
    """A sample on its way.

    Attributes:
        key: of the sample.
        span: its record in the source.
        group: its column of the samples table, where groups are told.
    """

    key: str
    span: SourceSpan
    group: dict[str, str]


def _add(writer: ShardWriter, source: "_Source", sample: _Sample, outcome: Outcome) -> None:
    """Write what became of one sample, and count it."""
    for reject in source.rejects_up_to(sample.key):
        if reject.key == sample.key and outcome.drop and reject.action == "kept":
            forget_note(writer.tally, reject.reason)
        else:
            writer.reject(reject)
    if outcome.parts:
        outcome.row |= sample.group
        writer.add(int(sample.key[-KEY_DIGITS:]), sample.span, outcome.parts, outcome.row)
    count_outcome(writer, outcome, sample.span, sample.key)


class _Source:
    """The shard that is read, and what stands beside it.

    Attributes:
        sidecar: of the shard.
        key_prefix: of its samples.
        groups: what its samples table says of groups; None where it tells none.
    """

    def __init__(self, task: UnitTask[AlignJob]) -> None:
        segment = task.unit.segment
        path = segment.path
        _, self.sidecar = read_input_sidecar(path)
        planned = (task.job.aligned, segment.end, segment.end)
        if (self.sidecar.fingerprint, self.sidecar.bytes, _size(path)) != planned:
            raise UnitError(f"{path}: has changed since the run was planned; run it again")
        self.groups = read_label(samples_path(path))
        wanted = [*_COLUMNS, *(GROUP_COLUMNS if self.groups else ())]
        self._rows: list[Row] = read_samples_rows(samples_path(path), wanted)
        self._rejects = deque(_read_rejects(path, self.sidecar))
        self._path = path
        self._job = task.job
        self._reader = ShardReader(path)
        keys = [row["key"] for row in self._rows]
        if keys != self._reader.keys or len(keys) != self.sidecar.tally.documents:
            raise UnitError(f"{path}: its samples table belongs to another shard; mmdata validate")
        self.key_prefix = keys[0][:-KEY_DIGITS] if keys else ""

    def __enter__(self) -> "_Source":
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()

    def drafts(self, front: FrontEnd) -> Iterator[tuple[_Sample, Draft]]:
        """Every sample with its document and pixels, in the order of the shard."""
        for row in self._rows:
            key = row["key"]
            where = f"{self._path}: {key}"
            member = bytes(self._reader.read(key).members["json"])
            if hashlib.sha256(member).hexdigest() != row["sha256"]:
                raise UnitError(f"{where}: is not what it was written as; mmdata validate")
            if sample_key(int(key[-KEY_DIGITS:]), self.key_prefix) != key:
                raise UnitError(f"{where}: is not a key of this shard; mmdata validate")
            parsed = parse_sample(member, where)
            if len(parsed.base64) != len(row["image_bytes"]):
                raise UnitError(f"{where}: has other images than its row of the samples table")
            draft = _draft(parsed, row, front, self._job)
            group = {name: row[name] for name in GROUP_COLUMNS if name in row}
            yield _Sample(key, span_of_row(row), group), draft

    def dropped_before(self) -> Tally:
        """The counts of what the shard has lost already; its samples are still to be added."""
        tally = self.sidecar.tally
        return Tally(
            records=tally.records - tally.documents,
            images_listed=tally.images_listed - tally.images,
            documents_dropped=dict(tally.documents_dropped),
            images_dropped=dict(tally.images_dropped),
            notes=dict(tally.notes),
            other_splits=tally.other_splits,
        )

    def rejects_up_to(self, key: str | None) -> Iterator[Reject]:
        """The next rejects of before, those of a key included; all that are left for None."""
        while self._rejects and (key is None or self._rejects[0].key <= key):
            yield self._rejects.popleft()


def _draft(sample: ParsedSample, row: Row, front: FrontEnd, job: AlignJob) -> Draft:
    """A sample as a document whose images were checked before."""
    policy = AssemblyPolicy(
        images=ImagePolicy(),
        min_similarity=job.min_similarity,
        # What had no images before was meant to be kept.
        keep_text_only=job.keep_text_only or not sample.base64,
    )
    draft = Draft(sample.document, policy, [], Outcome())
    for index, base64 in enumerate(sample.base64):
        try:
            pixels = front.pixels(pybase64.b64decode(base64, validate=True))
        except ImageRejected as rejected:
            name = sample.document.images[index].name
            draft.outcome.dropped_images[index] = (rejected.reason, f"{name}: {rejected.detail}")
            continue
        picture = Picture(
            index,
            base64,
            row["image_bytes"][index],
            row["width"][index],
            row["height"][index],
            row["format"][index],
            row["image_sha256"][index],
            row["reencoded"][index],
            sample.windows[index],
        )
        draft.pictures.append(picture)
        draft.pixels.append(pixels)
    return draft


def _read_rejects(path: str, sidecar: Sidecar) -> list[Reject]:
    """The rejects beside a shard, in the order of their records."""
    beside = path.removesuffix(TAR) + REJECTS
    try:
        raw = read_bytes(beside)
        if hashlib.sha256(raw).hexdigest() != sidecar.rejects_sha256:
            raise UnitError(f"{beside}: is not what it was written as; mmdata validate")
        return [msgspec.json.decode(line, type=Reject) for line in raw.splitlines()]
    except (OSError, msgspec.DecodeError) as error:
        raise UnitError(f"{beside}: cannot be read: {error}") from error


def read_input_sidecar(path: str) -> tuple[bytes, Sidecar]:
    """The sidecar of a shard, as bytes and decoded.

    Raises:
        BadInputError: there is none that can be read.
    """
    beside = path.removesuffix(TAR) + SIDECAR
    try:
        raw = read_bytes(beside)
        return raw, msgspec.json.decode(raw, type=Sidecar)
    except (OSError, msgspec.DecodeError) as error:
        raise BadInputError(f"{beside}: cannot be read: {error}") from error


def _size(path: str) -> int:
    with suppress(FileNotFoundError):
        return size_of(path)
    return -1
