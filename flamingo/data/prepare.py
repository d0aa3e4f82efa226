"""From a record to an example: which images, which tokens, then the pixels.

Selection and tokens come first and cost little; only the images that they leave are decoded. When
one of those cannot be, the record is looked at once more without it: a broken image costs its
document nothing but itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from flamingo.data.config import StreamConfig
from flamingo.data.decode import UndecodableError, decode_image
from mmdata.selection import ImageReason, SelectionPolicy, coin
from mmdata.usage.plans import MAX_TOKENS, Plan, plan_record
from mmdata.usage.records import Record, RecordRule, image_bytes
from mmdata.usage.tokens import MediaTokenizer


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
        chance = None if self._validation else self._coin(epoch, key)
        return plan_record(
            record,
            self._rule,
            self.policy,
            self._tokenizer,
            self._max_tokens,
            coin=chance,
            unusable=unusable,
        )

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

    def _coin(self, epoch: int, key: str) -> float:
        return coin(self._seed, self._config.name, epoch, key)
