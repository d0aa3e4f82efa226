"""Damaged samples: skipped, counted by reason, reported each epoch, and too many stop the run.

Damaged is what no option explains: bytes that are not the sample, no JSON, a matrix of another
shape, images that cannot be decoded. What selection leaves out is not.

The share is that of all ranks together: each counts what it reads (`DamageCount`, which adds up),
the trainer judges the sum in every step. By itself a rank stops only when its own damage is too
much for all of them.
"""

import logging
from collections import Counter
from dataclasses import dataclass

from flamingo.data.lane import RecordOutcome
from mmdata.errors import BadInputError
from mmdata.training_view.selection import DocumentReason, ImageReason

logger = logging.getLogger(__name__)
DAMAGED = frozenset(
    (
        DocumentReason.DAMAGED,
        DocumentReason.BAD_RECORD,
        DocumentReason.BAD_ALIGNMENT,
        DocumentReason.IMAGES_UNDECODABLE,
    )
)
#: A share is judged over so many samples at least: one of five is no 20%.
_LEAST_SAMPLES = 1000
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class DamageCount:
    """How much of what was read of a stream is damaged, here or on several ranks.

    Attributes:
        stream: its name.
        max_fraction: of the samples, that may be damaged.
        num_read: samples.
        num_bad: of these.
        examples: a few.
    """

    stream: str
    max_fraction: float
    num_read: int = 0
    num_bad: int = 0
    examples: tuple[str, ...] = ()

    def __add__(self, other: "DamageCount") -> "DamageCount":
        return DamageCount(
            self.stream,
            self.max_fraction,
            self.num_read + other.num_read,
            self.num_bad + other.num_bad,
            (self.examples + other.examples)[:_EXAMPLES],
        )

    def check(self, parts: float = 1.0) -> None:
        """Stop the run if it is too much.

        Args:
            parts: of the stream that are read elsewhere, this one included; these are taken to be
                as large, and whole.

        Raises:
            BadInputError: it is.
        """
        if self.num_bad > self.max_fraction * max(self.num_read * parts, _LEAST_SAMPLES):
            raise BadInputError(
                f"stream {self.stream}: {self.num_bad} of {self.num_read} samples are damaged,"
                f" more than --max-bad-fraction {self.max_fraction:g} allows "
                f"({'; '.join(self.examples)}); mmdata validate says more"
            )


class DamageWatch:
    """Looks at every record that a rank reads of a stream.

    Args:
        name: of the stream.
        max_fraction: of the samples, that may be damaged.
        epoch_records: records of this rank's epoch: a report is made after so many.
        parts: of the stream, of which this rank reads one.
    """

    def __init__(
        self, name: str, max_fraction: float, epoch_records: int, parts: float = 1.0
    ) -> None:
        self._name, self._parts = name, parts
        self._max_fraction = max_fraction
        self._num_read, self._num_bad = 0, 0
        self._first: list[str] = []
        self._epoch_records = max(1, epoch_records)
        self._begin()

    def _begin(self) -> None:
        self._in_epoch = 0
        self._reasons: Counter[str] = Counter()
        self._examples: list[str] = []

    @property
    def found(self) -> DamageCount:
        """Since the stream was opened."""
        return DamageCount(
            self._name, self._max_fraction, self._num_read, self._num_bad, tuple(self._first)
        )

    def saw(self, outcome: RecordOutcome) -> None:
        """Take note of a record.

        Raises:
            BadInputError: too many are damaged.
        """
        self._num_read += 1
        self._in_epoch += 1
        reason = _damage(outcome)
        if reason is not None:
            self._num_bad += 1
            self._reasons[reason] += 1
            example = f"{outcome.sample.source}: {outcome.sample.key}: {reason}"
            for kept in (self._examples, self._first):
                if len(kept) < _EXAMPLES:
                    kept.append(example)
            self.found.check(self._parts)
        if self._in_epoch >= self._epoch_records:
            self.report()

    def report(self) -> None:
        """Say what was damaged since the last report, if anything was."""
        if self._reasons:
            told = ", ".join(f"{reason} {number}" for reason, number in self._reasons.most_common())
            logger.warning(
                "stream %s: %d of %d samples of the epoch are damaged and were skipped or lost "
                "images: %s; for example %s",
                self._name,
                self._reasons.total(),
                self._in_epoch,
                told,
                "; ".join(self._examples),
            )
        self._begin()


def _damage(outcome: RecordOutcome) -> str | None:
    """What is damaged of a record; None when nothing is."""
    drop = outcome.plan.document_drop
    if drop is not None:
        return str(drop) if drop in DAMAGED else None
    if ImageReason.UNDECODABLE in outcome.plan.image_drops.values():
        return f"image:{ImageReason.UNDECODABLE}"
    return None
