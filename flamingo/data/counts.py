"""What a stream gave to a step, in numbers: samples, tokens, images and targets."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from flamingo.data.batch import Batch


@dataclass(frozen=True, slots=True)
class StreamCounts:
    """What a stream gave to a step, or to several.

    Attributes:
        samples: documents or pairs; packed or not, each by itself.
        tokens: without padding.
        images: real ones.
        targets: tokens that the loss is of.
        encoded: of the images, those that went through the vision tower.
        positions: of text that were computed for them, padding with it.
        blank_images: computed beside them, by ranks whose pass has no samples of its own.
    """

    samples: int = 0
    tokens: int = 0
    images: int = 0
    targets: int = 0
    encoded: int = 0
    positions: int = 0
    blank_images: int = 0

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
            positions=batch.attention_mask.numel(),
        )

    @property
    def computed(self) -> "StreamCounts":
        """The counts as if padding were tokens and blank images were samples' own."""
        return replace(
            self,
            tokens=self.positions,
            images=self.images + self.blank_images,
            encoded=self.encoded + (self.blank_images if self.encoded else 0),
        )

    def __add__(self, other: "StreamCounts") -> "StreamCounts":
        return StreamCounts(
            self.samples + other.samples,
            self.tokens + other.tokens,
            self.images + other.images,
            self.targets + other.targets,
            self.encoded + other.encoded,
            self.positions + other.positions,
            self.blank_images + other.blank_images,
        )
