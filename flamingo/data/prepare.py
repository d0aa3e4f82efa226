"""From a record to an example: which images, which tokens, then the pixels.

Selection and tokens come first and cost little; only the images that they leave are decoded. When
one of those cannot be, the record is looked at once more without it: a broken image costs its
document nothing but itself.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from flamingo.data.config import MAX_TOKENS, StreamConfig
from flamingo.data.decode import UndecodableError, decode_image
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
    """

    input_ids: list[int] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    image_drops: dict[int, ImageReason] = field(default_factory=dict)
    document_drop: DocumentReason | None = None

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
        pixels: of the plan's images: (3, S, S) uint8 each; empty for a dropped document.
    """

    plan: Plan
    pixels: list[Tensor]


#: Of an image of the record: whether to mirror it.
Flips = Callable[[int], bool]


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
        self._max_tokens = config.max_tokens or MAX_TOKENS[rule]

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
        tokens = interleaved_tokens(record.texts, places, self._tokenizer, self._max_tokens)
        images = [image for image, _ in chosen.kept]
        drops = chosen.image_drops | dict.fromkeys(images[tokens.num_images :], ImageReason.CUT_OFF)
        reason = judge_cut(
            tokens.num_images,
            self.policy,
            image_is_last=tokens.input_ids[-1] == self._tokenizer.image_id,
            coin=chance,
        )
        return Plan(tokens.input_ids, images[: tokens.num_images], drops, reason)

    def finish(
        self, record: Record, key: str, epoch: int, plan: Plan, decoded: Mapping[int, Tensor | None]
    ) -> Example:
        """The example, from the plan's images decoded; None among them is one that could not be.

        Images that come in for a broken one are decoded here.
        """
        pixels = dict(decoded)
        while plan.document_drop is None:
            for image in plan.images:
                if image not in pixels:
                    pixels[image] = self.decode(record, image, key, epoch)
            used = [pixels[image] for image in plan.images]
            if all(one is not None for one in used):
                return Example(plan, [one for one in used if one is not None])
            broken = [image for image, one in pixels.items() if one is None]
            unusable = dict.fromkeys(broken, ImageReason.UNDECODABLE)
            plan = self.plan(record, key, epoch, unusable)
        return Example(plan, [])

    def decode(self, record: Record, image: int, key: str, epoch: int) -> Tensor | None:
        """(3, S, S) uint8; None for an image that cannot be decoded. Safe in any thread."""
        data = record.images[image]
        if data is None:
            return None
        flip = (
            self._config.flip
            and not self._validation
            and self._coin(epoch, f"{key}\0flip {image}") < 0.5
        )
        try:
            return decode_image(image_bytes(data), self._config.image_size, flip=flip)
        except (UndecodableError, ValueError):
            return None

    def _plan_caption(self, record: Record, unusable: Mapping[int, ImageReason]) -> Plan:
        if unusable:
            return Plan(image_drops=dict(unusable), document_drop=DocumentReason.IMAGES_UNDECODABLE)
        tokens = caption_tokens(record.texts[0], self._tokenizer, self._max_tokens)
        return Plan(tokens.input_ids, [0])

    def _coin(self, epoch: int, key: str) -> float:
        return coin(self._seed, self._config.name, epoch, key)
