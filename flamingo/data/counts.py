"""What a stream gave to a step, in numbers: samples, tokens, images and targets."""

from collections.abc import Iterable
from dataclasses import dataclass

from flamingo.data.batch import Batch


@dataclass(frozen=True, slots=True)
class StreamCounts:
    """What a stream gave to a step, or to several.

    Attributes:
        samples: documents, pairs or, packed, sequences.
        tokens: without padding.
        images: real ones.
        targets: tokens that the loss is of.
        encoded: of the images, those that went through the vision tower.
    """

    samples: int = 0
    tokens: int = 0
    images: int = 0
    targets: int = 0
    encoded: int = 0

    @classmethod
    def of(cls, batches: Iterable[Batch]) -> "StreamCounts":
        """The counts of micro-batches together."""
        return sum((cls._of_one(batch) for batch in batches), cls())

    @classmethod
    def _of_one(cls, batch: Batch) -> "StreamCounts":
        return cls(
            samples=len(batch.keys),
            tokens=int(batch.attention_mask.sum()),
            images=batch.num_images,
            targets=batch.num_targets,
            encoded=batch.num_images if batch.features is None else 0,
        )

    def __add__(self, other: "StreamCounts") -> "StreamCounts":
        return StreamCounts(
            self.samples + other.samples,
            self.tokens + other.tokens,
            self.images + other.images,
            self.targets + other.targets,
            self.encoded + other.encoded,
        )
