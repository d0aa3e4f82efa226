"""From a record to an example: which images, which tokens, then the pixels.

Selection and tokens come first and cost little; only the images that they leave are decoded. When
one of those cannot be, the record is looked at once more without it: a broken image costs its
document nothing but itself. (A document that was cut into chunks is not cut anew: then its chunk is
put together without the image.)
"""

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from flamingo.data.chunks import Chunk, cut_document
from flamingo.data.config import MAX_TOKENS, StreamConfig
from flamingo.data.decode import UndecodableError, decode_image
from flamingo.data.features import FeatureStore
from flamingo.data.records import Record, RecordRule, image_bytes
from flamingo.data.tokens import MediaTokenizer, caption_tokens, interleaved_tokens
from mmdata.selection import (
    DocumentReason,
    ImageReason,
    SelectionPolicy,
    coin,
    judge_cut,
    select,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be used of a record.

    Attributes:
        input_ids: its tokens.
        images: indices of its images, the k-th for the k-th `<image>` tag.
        image_drops: why each other image is not used.
        document_drop: why nothing is; None when something is.
        chunk: the part of a document that was cut which this is.
    """

    input_ids: list[int] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    image_drops: dict[int, ImageReason] = field(default_factory=dict)
    document_drop: DocumentReason | None = None
    chunk: Chunk | None = None

    @property
    def drops(self) -> Counter[str]:
        """`document:<reason>` once or `image:<reason>` for each image.

        The images of a dropped document are not counted one by one.
        """
        if self.document_drop is not None:
            return Counter([f"document:{self.document_drop}"])
        return Counter(f"image:{reason}" for reason in self.image_drops.values())


@dataclass(frozen=True, slots=True)
class Example:
    """A record as the model sees it.

    Attributes:
        plan: what is used.
        media: of the plan's images: pixels (3, S, S) uint8 each, or features (V, D) bf16 where
            they are precomputed; empty for a dropped document.
        mirrored: of each image, whether the device is to mirror it.
    """

    plan: Plan
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
    ) -> Plan:
        """What to use of a record, leaving out the images that are unusable."""
        if self._rule == "caption":
            return self._plan_caption(record, unusable or {})
        chance = None if self._validation else self._coin(epoch, key)
        chosen = select(record.candidates, self.policy, coin=chance, unusable=unusable)
        if chosen.document_drop is not None:
            return Plan(image_drops=chosen.image_drops, document_drop=chosen.document_drop)
        places = [sentence for _, sentence in chosen.kept]
        tokens = interleaved_tokens(record.texts, places, self._tokenizer, self.max_tokens)
        images = [image for image, _ in chosen.kept]
        drops = chosen.image_drops | dict.fromkeys(images[tokens.num_images :], ImageReason.CUT_OFF)
        reason = judge_cut(
            tokens.num_images,
            self.policy,
            image_is_last=tokens.input_ids[-1] == self._tokenizer.image_id,
            coin=chance,
        )
        return Plan(tokens.input_ids, images[: tokens.num_images], drops, reason)

    def plans(self, record: Record, key: str, epoch: int) -> list[Plan]:
        """What to use of a record: one plan, or one a chunk in the order of the text.

        Only a document that truncation takes images from is cut, and what it gives is not subject
        to the coin for documents of a single image.
        """
        plan = self.plan(record, key, epoch)
        lost = {ImageReason.CUT_OFF, ImageReason.OVER_CAP} & set(plan.image_drops.values())
        if (
            self._config.long_documents == "truncate"
            or self._rule == "caption"
            or not (lost or plan.document_drop is DocumentReason.CUT_OFF)
        ):
            return [plan]
        chance = None if self._validation else self._coin(epoch, key)
        policy = replace(self.policy, max_images=sys.maxsize)
        chosen = select(record.candidates, policy, coin=chance)
        if chosen.document_drop is not None:
            return [Plan(image_drops=chosen.image_drops, document_drop=chosen.document_drop)]
        cut = cut_document(
            record.texts,
            chosen.kept,
            self._tokenizer,
            max_tokens=self.max_tokens,
            max_images=self.policy.max_images,
        )
        drops = chosen.image_drops | dict.fromkeys(cut.over_cap, ImageReason.OVER_CAP)
        drops |= dict.fromkeys(cut.cut_off, ImageReason.CUT_OFF)
        if not cut.chunks:
            return [Plan(image_drops=drops, document_drop=DocumentReason.CUT_OFF)]
        return [
            Plan(chunk.input_ids, [i for i, _ in chunk.pairs], {} if number else drops, chunk=chunk)
            for number, chunk in enumerate(cut.chunks)
        ]

    def finish(
        self,
        record: Record,
        key: str,
        epoch: int,
        plan: Plan,
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
                plan = self._plan_chunk(record, plan, plan.chunk, unusable)
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

    def _plan_chunk(
        self, record: Record, plan: Plan, chunk: Chunk, unusable: Mapping[int, ImageReason]
    ) -> Plan:
        """A chunk without the images that are unusable."""
        pairs = [pair for pair in chunk.pairs if pair[0] not in unusable]
        lost = {image: unusable[image] for image, _ in chunk.pairs if image in unusable}
        drops = plan.image_drops | lost
        if not pairs:
            gone = DocumentReason.IMAGES_UNDECODABLE
            return Plan(image_drops=drops, document_drop=gone, chunk=chunk)
        tokens = interleaved_tokens(
            record.texts[chunk.first : chunk.last],
            [sentence - chunk.first for _, sentence in pairs],
            self._tokenizer,
            self.max_tokens,
        )
        images = [image for image, _ in pairs]
        drops |= dict.fromkeys(images[tokens.num_images :], ImageReason.CUT_OFF)
        is_last = tokens.input_ids[-1] == self._tokenizer.image_id
        reason = DocumentReason.CUT_OFF if is_last or not tokens.num_images else None
        left = replace(chunk, pairs=pairs)
        return Plan(tokens.input_ids, images[: tokens.num_images], drops, reason, left)

    def _plan_caption(self, record: Record, unusable: Mapping[int, ImageReason]) -> Plan:
        if unusable:
            return Plan(image_drops=dict(unusable), document_drop=DocumentReason.IMAGES_UNDECODABLE)
        tokens = caption_tokens(record.texts[0], self._tokenizer, self.max_tokens)
        return Plan(tokens.input_ids, [0])

    def _coin(self, epoch: int, key: str) -> float:
        return coin(self._seed, self._config.name, epoch, key)
