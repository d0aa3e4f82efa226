"""Counts of what training would use; they add up over shards and are small whatever these hold."""

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

from mmdata.training_view.plans import RecordPlan
from mmdata.training_view.selection import DocumentReason

#: Cosines; 0.24 is the usual one, and 0.32 what OpenFlamingo's authors tried beside it.
THRESHOLDS = (0.20, 0.22, 0.24, 0.26, 0.28, 0.30, 0.32)


@dataclass(slots=True)
class TrainingTally:
    """What was seen of some documents.

    Attributes:
        looked_at: documents.
        unsettled: those whose images the samples table alone cannot assign.
        unsettled_small: those of them that lost images to the byte filter.
        used: documents, before the coin.
        single_image: those of them with one image: the coin's.
        dropped: the others, by reason.
        images: of all of them.
        images_used: of used documents.
        images_dropped: of used documents, by reason.
        images_of_dropped: of the other documents.
        reasons_of_dropped: those of them that would not have been used anyway, by reason.
        lengths: used documents by their number of tokens; empty without a tokenizer.
        by_threshold: (documents, images) that each threshold leaves, before any text is cut.
    """

    looked_at: int = 0
    unsettled: int = 0
    unsettled_small: int = 0
    used: int = 0
    single_image: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    images: int = 0
    images_used: int = 0
    images_dropped: Counter[str] = field(default_factory=Counter)
    images_of_dropped: int = 0
    reasons_of_dropped: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    by_threshold: dict[float, tuple[int, int]] = field(default_factory=dict)

    def add(self, plan: RecordPlan, num_images: int) -> None:
        """Count a document.

        Args:
            plan: what is used of it, by a plan without a coin.
            num_images: that it lists.
        """
        self.looked_at += 1
        self.images += num_images
        if plan.document_drop is not None:
            self.dropped[plan.document_drop.value] += 1
            self.images_of_dropped += num_images
            self.reasons_of_dropped.update(reason.value for reason in plan.image_drops.values())
            return
        self.used += 1
        self.single_image += len(plan.images) == 1
        self.images_used += len(plan.images)
        self.images_dropped.update(reason.value for reason in plan.image_drops.values())
        if plan.input_ids:
            self.lengths[len(plan.input_ids)] += 1

    def add_unusable(self, reason: DocumentReason) -> None:
        """Count a sample that is no record of the stream's kind."""
        self.looked_at += 1
        self.dropped[reason.value] += 1

    def add_threshold(self, threshold: float, num_images: int) -> None:
        """Count what a threshold leaves of a document: `num_images`, 0 where it drops it."""
        documents, images = self.by_threshold.get(threshold, (0, 0))
        self.by_threshold[threshold] = (documents + bool(num_images), images + num_images)

    def merge(self, other: "TrainingTally") -> None:
        """Add another's counts to these."""
        add_counts(self, other)
        for threshold, (documents, images) in other.by_threshold.items():
            mine = self.by_threshold.get(threshold, (0, 0))
            self.by_threshold[threshold] = (mine[0] + documents, mine[1] + images)


def add_counts(total: Any, more: Any) -> None:
    """Add the counts of a dataclass to those of another: numbers, and numbers by reason."""
    for one in fields(total):
        mine, other = getattr(total, one.name), getattr(more, one.name)
        if isinstance(mine, Counter):
            mine.update(other)
        elif isinstance(mine, int):
            setattr(total, one.name, mine + other)


def padding_share(lengths: Counter[int], batch_size: int) -> float:
    """The share of a batch's tokens that are padding, on average over random batches.

    A batch is as long as its longest sample. Of B draws, the longest is at most n with probability
    F(n)**B; what that makes the longest on average needs no drawing.

    Args:
        lengths: samples by their number of tokens.
        batch_size: B, samples.
    """
    total = lengths.total()
    if not total:
        return 0.0
    mean = sum(length * count for length, count in lengths.items()) / total
    longest, below, before = 0.0, 0, 0
    for length in sorted(lengths):
        longest += (length - before) * (1 - (below / total) ** batch_size)
        below += lengths[length]
        before = length
    return 1 - mean / longest
