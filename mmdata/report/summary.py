"""What a report knows of a dataset, added up shard by shard.

A `Summary` is small whatever the dataset holds (fixed bins, counters, the picked documents' rows),
so workers make one for some shards each and the driver merges them; the order does not matter.
Nothing here opens a tar.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from mmdata.errors import MMDataError
from mmdata.forecast.tally import TrainingTally
from mmdata.report.distribution import Distribution
from mmdata.report.picks import Picks, pick
from mmdata.report.tables import SamplesTable
from mmdata.report.training import Alignment, training_use
from mmdata.shards.naming import REJECTS, SIDECAR, TAR
from mmdata.shards.reader import samples_path
from mmdata.storage.files import exists, open_file, read_bytes
from mmdata.training_view.selection import SelectionPolicy
from schemas.manifest import Reject, Tally

#: Rejects that are shown as examples of each reason, and shards that are named as unreadable.
_MAX_EXAMPLES = 3
_MAX_PROBLEMS = 20


class SidecarFacts(msgspec.Struct):
    """What a report takes from a sidecar; the rest of it is the validator's."""

    tally: Tally
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryTask:
    """Some shards to be summed up.

    Attributes:
        paths: their tars.
        first: place of the first among all shards.
        alignment: of their documents.
        policy: of the training run that is forecast.
        num_random, num_extreme: documents to pick at random, and of the worst and best aligned.
        seed: of the random picks.
    """

    paths: tuple[str, ...]
    first: int
    alignment: Alignment
    policy: SelectionPolicy
    num_random: int
    num_extreme: int
    seed: int


def _distributions() -> dict[str, Distribution]:
    return {
        "images": Distribution("count"),
        "sentences": Distribution("count"),
        "text_bytes": Distribution("octave"),
        "longest_side": Distribution("octave"),
        "shortest_side": Distribution("octave"),
        "image_bytes": Distribution("octave"),
        "similarity": Distribution("cosine"),
        "margin": Distribution("cosine"),
    }


@dataclass(slots=True)
class Summary:
    """Sums over shards.

    Attributes:
        shards: that were read.
        problems: (path, why) of the first shards that could not be read; `num_problems` counts all.
        num_sidecars: shards whose sidecar says what came in; `tally` and `tar_bytes` are theirs.
        examples: by action and reason, the first few rejects.
        by_shard: (documents, images of a known similarity, sum of these) by place among all shards.
    """

    shards: int = 0
    num_problems: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    num_sidecars: int = 0
    tar_bytes: int = 0
    tally: Tally = field(default_factory=Tally)
    documents: int = 0
    images: int = 0
    sentences: int = 0
    text_bytes: int = 0
    image_bytes: int = 0
    reencoded: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    distributions: dict[str, Distribution] = field(default_factory=_distributions)
    training: TrainingTally = field(default_factory=TrainingTally)
    picks: Picks = field(default_factory=Picks)
    examples: dict[tuple[str, str], list[Reject]] = field(default_factory=dict)
    by_shard: dict[int, tuple[int, int, float]] = field(default_factory=dict)

    def merge(self, other: "Summary") -> None:
        """Take over what another one counted."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.problems = sorted(self.problems + other.problems)[:_MAX_PROBLEMS]
        self.tally.add(other.tally)
        self.formats.update(other.formats)
        for name, distribution in self.distributions.items():
            distribution.merge(other.distributions[name])
        self.training.merge(other.training)
        self.picks.merge(other.picks)
        self.by_shard |= other.by_shard
        for key, rejects in other.examples.items():
            both = self.examples.get(key, []) + rejects
            self.examples[key] = sorted(both, key=_place_of)[:_MAX_EXAMPLES]


_COUNTS = (
    *("shards", "num_problems", "num_sidecars", "tar_bytes", "documents", "images", "sentences"),
    *("text_bytes", "image_bytes", "reencoded"),
)


def summarise(task: SummaryTask) -> Summary:
    """Sum up some shards. What cannot be read is named in the summary, not left out in silence."""
    whole = Summary(picks=Picks(num_random=task.num_random, num_extreme=task.num_extreme))
    for place, path in enumerate(task.paths, start=task.first):
        try:
            table = _table_of(path)
            part = _summarise_table(table, task, place)
            part.picks = pick(table, path, place, task.num_random, task.num_extreme, task.seed)
            _add_sidecar(part, path, set(whole.examples))
        except (MMDataError, OSError) as error:
            part = Summary(num_problems=1, problems=[(path, str(error))])
        whole.merge(part)
    return whole


def _table_of(path: str) -> SamplesTable:
    beside = samples_path(path)
    if not exists(beside):
        raise FileNotFoundError("no samples table stands beside it; mmdata index makes one")
    return SamplesTable(beside)


def _summarise_table(table: SamplesTable, task: SummaryTask, place: int) -> Summary:
    rows = table.image_rows()
    width, height = np.array([table.column("width"), table.column("height")], dtype=np.int64)
    text_bytes = table.column("text_bytes")
    similarity = [value for value in rows.similarity if not math.isnan(value)]
    values: dict[str, Any] = {
        "images": np.diff(rows.offsets),
        "sentences": rows.sentences,
        "text_bytes": text_bytes,
        "longest_side": np.maximum(width, height),
        "shortest_side": np.minimum(width, height),
        "image_bytes": rows.image_bytes,
        "similarity": similarity,
        "margin": [value for value in table.column("margin") if value is not None],
    }
    summary = Summary(
        shards=1,
        documents=table.num_documents,
        images=len(rows.similarity),
        sentences=sum(rows.sentences),
        text_bytes=sum(text_bytes),
        image_bytes=sum(rows.image_bytes),
        reencoded=sum(map(bool, table.column("reencoded"))),
        formats=Counter(map(str, table.column("format"))),
        training=training_use(rows, task.alignment, task.policy),
        by_shard={place: (table.num_documents, len(similarity), sum(similarity))},
    )
    for name, found in values.items():
        summary.distributions[name].add(found)
    return summary


def _add_sidecar(summary: Summary, path: str, known: set[tuple[str, str]]) -> None:
    """What came in, and examples of what was dropped whose reason has none yet."""
    try:
        raw = read_bytes(path.removesuffix(TAR) + SIDECAR)
        facts = msgspec.json.decode(raw, type=SidecarFacts)
    except (FileNotFoundError, msgspec.DecodeError):  # the validator says which, with a remedy
        return
    summary.num_sidecars, summary.tar_bytes, summary.tally = 1, facts.bytes, facts.tally
    wanted = {("dropped-document", reason) for reason in facts.tally.documents_dropped}
    wanted |= {("dropped-image", reason) for reason in facts.tally.images_dropped}
    wanted |= {("kept", reason) for reason in facts.tally.notes}
    if wanted - known:
        summary.examples = _examples(path, wanted - known)


def _examples(path: str, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], list[Reject]]:
    found: dict[tuple[str, str], list[Reject]] = {}
    for reject in read_rejects(path):
        kind = (reject.action, reject.reason)
        if kind in wanted and len(found.setdefault(kind, [])) < _MAX_EXAMPLES:
            found[kind].append(reject)
    return found


def read_rejects(path: str) -> Iterable[Reject]:
    """The rejects of a shard, one at a time; none where there is no file. Damaged lines are
    the validator's (SIDE010) and end it.
    """
    try:
        with open_file(path.removesuffix(TAR) + REJECTS) as file:
            for line in file:
                yield msgspec.json.decode(line, type=Reject)
    except (FileNotFoundError, msgspec.DecodeError):
        return


def _place_of(reject: Reject) -> tuple[str, str, int, str]:
    return reject.file, reject.member, reject.record, reject.image
