"""From a record to an example: which images, which tokens, then the pixels.

Selection and tokens come first and cost little; only the images that they leave are decoded. When
one of those cannot be, the record is looked at once more without it: a broken image costs its
document nothing but itself. (A document that was cut into chunks is not cut anew: then its chunk is
put together without the image.)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from flamingo.data.config import StreamConfig
from flamingo.data.decode import UndecodableError, decode_image
from flamingo.data.features import FeatureStore
from mmdata.training_view.plans import (
    MAX_TOKENS,
    RecordPlan,
    plan_chunks,
    plan_record,
    plan_rest_of_chunk,
)
from mmdata.training_view.records import Record, RecordRule, image_bytes
from mmdata.training_view.selection import ImageReason, SelectionPolicy, coin
from mmdata.training_view.sequence import MediaTokenizer


@dataclass(frozen=True, slots=True)
class Example:
    """A record as the model sees it.

    Attributes:
        plan: what is used.
        media: of the plan's images: pixels (3, S, S) uint8 each, or features (V, D) bf16 where
            they are precomputed; empty for a dropped document.
        mirrored: of each image, whether the device is to mirror it.
    """

    plan: RecordPlan
    media: list[Tensor] = field(default_factory=list)
    mirrored: list[bool] = field(default_factory=list)


class Preparer:
    """Prepares the records of one stream.

    Args:
        config: of the stream.
        rule: of the stream, resolved.
        tokenizer: what makes ids.
        seed: of the run.
        validation: no coins: every document, no mirrored image.
    """

    def __init__(
        self,
        config: StreamConfig,
        rule: RecordRule,
        tokenizer: MediaTokenizer,
        *,
        seed: int,
        validation: bool,
    ) -> None:
        self.policy = SelectionPolicy(
            min_similarity=config.min_similarity,
            min_image_bytes=config.min_image_bytes,
            max_images=config.max_images,
            min_images=config.min_images,
            keep_single_image=config.keep_single_image,
            surplus=config.surplus,
        )
        self._config, self._rule, self._tokenizer = config, rule, tokenizer
        self._seed, self._validation = seed, validation
        self.max_tokens = config.max_tokens or MAX_TOKENS[rule]
        self._features = None if config.features is None else FeatureStore(config.features)

    def expect_tower(self, tower: str) -> None:
        """Refuse precomputed features of another vision tower."""
        if self._features is not None:
            self._features.expect(tower)

    def plan(
        self,
        record: Record,
        key: str,
        epoch: int,
        unusable: Mapping[int, ImageReason] | None = None,
    ) -> RecordPlan:
        """What to use of a record, leaving out the images that are unusable."""
        return plan_record(
            record,
            self._rule,
            self.policy,
            self._tokenizer,
            self.max_tokens,
            coin=self._single_coin(epoch, key),
            unusable=unusable,
        )

    def plans(self, record: Record, key: str, epoch: int) -> list[RecordPlan]:
        """What to use of a record: one plan, or one a chunk in the order of the text."""
        if self._config.long_documents == "truncate" or self._rule == "caption":
            return [self.plan(record, key, epoch)]
        chance = self._single_coin(epoch, key)
        return plan_chunks(record, self.policy, self._tokenizer, self.max_tokens, coin=chance)

    def finish(
        self,
        record: Record,
        key: str,
        epoch: int,
        plan: RecordPlan,
        decoded: Mapping[int, Tensor | None],
        *,
        source: str,
    ) -> Example:
        """The example, from the plan's images decoded; None among them is one that could not be.

        Images that come in for a broken one are decoded here.
        """
        media = dict(decoded)
        while plan.document_drop is None:
            for image in plan.images:
                if image not in media:
                    media[image] = self.decode(record, image, key, source=source)
            used = [media[image] for image in plan.images]
            if all(one is not None for one in used):
                mirrored = [self._mirrors(epoch, key, image) for image in plan.images]
                return Example(plan, [one for one in used if one is not None], mirrored)
            broken = [image for image, one in media.items() if one is None]
            unusable = dict.fromkeys(broken, ImageReason.UNDECODABLE)
            if plan.chunk is None:
                plan = self.plan(record, key, epoch, unusable)
            else:
                plan = plan_rest_of_chunk(
                    record, plan, plan.chunk, self._tokenizer, self.max_tokens, unusable=unusable
                )
        return Example(plan)

    def decode(self, record: Record, image: int, key: str, *, source: str) -> Tensor | None:
        """An image's pixels or features; None where it cannot be decoded. Safe in any thread.

        Args:
            record: which it is of.
            image: its index there.
            key: of the sample.
            source: its shard.
        """
        if self._features is not None:
            return self._features.read(source, key, image)
        data = record.images[image]
        if data is None:
            return None
        try:
            return decode_image(
                image_bytes(data), self._config.image_size, exact=self._config.exact_preprocess
            )
        except (UndecodableError, ValueError):
            return None

    def _mirrors(self, epoch: int, key: str, image: int) -> bool:
        if not self._config.random_flip or self._validation:
            return False
        return self._coin(epoch, f"{key}\0flip {image}") < 0.5

    def _single_coin(self, epoch: int, key: str) -> float | None:
        return None if self._validation else self._coin(epoch, key)

    def _coin(self, epoch: int, key: str) -> float:
        return coin(self._seed, self._config.name, epoch, key)
