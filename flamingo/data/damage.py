"""Damaged samples: skipped, counted by reason, reported each epoch, and too many stop the run.

Damaged is what no option explains: bytes that are not the sample, no JSON, a matrix of another
shape, images that cannot be decoded. What selection leaves out is not.
"""

import logging
from collections import Counter

from flamingo.data.lane import Outcome
from mmdata.errors import BadInputError
from mmdata.selection import DocumentReason, ImageReason

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


class DamageWatch:
    """Looks at every record that a rank reads of a stream.

    Args:
        name: of the stream.
        max_fraction: of the samples, that may be damaged.
        epoch_records: records of this rank's epoch: a report is made after so many.
    """

    def __init__(self, name: str, max_fraction: float, epoch_records: int) -> None:
        self._name, self._max_fraction = name, max_fraction
        self._epoch_records = max(1, epoch_records)
        self._num_read, self._num_bad = 0, 0
        self._begin()

    def _begin(self) -> None:
        self._in_epoch = 0
        self._reasons: Counter[str] = Counter()
        self._examples: list[str] = []

    def saw(self, outcome: Outcome) -> None:
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
            if len(self._examples) < _EXAMPLES:
                self._examples.append(f"{outcome.sample.source}: {outcome.sample.key}: {reason}")
            if self._num_bad > self._max_fraction * max(self._num_read, _LEAST_SAMPLES):
                raise BadInputError(
                    f"stream {self._name}: {self._num_bad} of {self._num_read} samples are damaged,"
                    f" more than --max-bad-fraction {self._max_fraction:g} allows "
                    f"({'; '.join(self._examples)}); mmdata validate says more"
                )
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


def _damage(outcome: Outcome) -> str | None:
    """What is damaged of a record; None when nothing is."""
    drop = outcome.plan.document_drop
    if drop is not None:
        return str(drop) if drop in DAMAGED else None
    if ImageReason.UNDECODABLE in outcome.plan.image_drops.values():
        return f"image:{ImageReason.UNDECODABLE}"
    return None
