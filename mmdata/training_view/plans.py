"""What training uses of a record: which images, which tokens; and why not the rest.

The trainer's stream asks this of every record that it reads, a forecast of whole datasets: it is
one function, so that they cannot differ. Nothing is decoded here, so an image that cannot be is
learned of later, and the record asked for once more without it.
"""

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mmdata.training_view import defaults
from mmdata.training_view.chunks import Chunk, cut_document
from mmdata.training_view.records import Record, RecordRule
from mmdata.training_view.selection import (
    DocumentReason,
    ImageReason,
    SelectionPolicy,
    judge_cut,
    select,
)
from mmdata.training_view.sequence import MediaTokenizer, caption_tokens, interleaved_tokens

#: Tokens of a sample at most, as OpenFlamingo has them.
MAX_TOKENS: dict[RecordRule, int] = {
    "interleaved": defaults.MAX_DOCUMENT_TOKENS,
    "caption": defaults.MAX_CAPTION_TOKENS,
}


@dataclass(frozen=True, slots=True)
class RecordPlan:
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


def plan_record(
    record: Record,
    rule: RecordRule,
    policy: SelectionPolicy,
    tokenizer: MediaTokenizer | None,
    max_tokens: int,
    *,
    coin: float | None = None,
    unusable: Mapping[int, ImageReason] | None = None,
) -> RecordPlan:
    """What to use of a record.

    Args:
        record: the sample.
        rule: of the stream.
        policy: what is asked of documents.
        tokenizer: what makes ids; None: the text is not looked at, so nothing is cut.
        max_tokens: where the text is cut.
        coin: in [0, 1), for documents with one image; None keeps them all.
        unusable: images that turned out not to be usable, with the reason.
    """
    if rule == "caption":
        return _plan_caption(record, tokenizer, max_tokens, unusable or {})
    chosen = select(record.candidates, policy, coin=coin, unusable=unusable)
    if chosen.document_drop is not None:
        return RecordPlan(image_drops=chosen.image_drops, document_drop=chosen.document_drop)
    images = [image for image, _ in chosen.kept]
    if tokenizer is None:
        return RecordPlan([], images, chosen.image_drops)
    places = [sentence for _, sentence in chosen.kept]
    tokens = interleaved_tokens(record.texts, places, tokenizer, max_tokens)
    drops = chosen.image_drops | dict.fromkeys(images[tokens.num_images :], ImageReason.CUT_OFF)
    reason = judge_cut(
        tokens.num_images,
        policy,
        image_is_last=tokens.input_ids[-1] == tokenizer.image_id,
        coin=coin,
    )
    return RecordPlan(tokens.input_ids, images[: tokens.num_images], drops, reason)


def _plan_caption(
    record: Record,
    tokenizer: MediaTokenizer | None,
    max_tokens: int,
    unusable: Mapping[int, ImageReason],
) -> RecordPlan:
    if unusable:
        return RecordPlan(
            image_drops=dict(unusable), document_drop=DocumentReason.IMAGES_UNDECODABLE
        )
    if tokenizer is None:
        return RecordPlan([], [0])
    return RecordPlan(caption_tokens(record.texts[0], tokenizer, max_tokens).input_ids, [0])


def plan_chunks(
    record: Record,
    policy: SelectionPolicy,
    tokenizer: MediaTokenizer,
    max_tokens: int,
    *,
    coin: float | None = None,
) -> list[RecordPlan]:
    """What to use of a document, a plan for each of its chunks, in the order of the text.

    Only a document that truncation takes images from is cut, and what it gives is not subject to
    the coin for documents of a single image.

    Args:
        record: an interleaved document.
        policy: what is asked of documents.
        tokenizer: what makes ids.
        max_tokens: that a chunk may have.
        coin: in [0, 1), for documents with one image; None keeps them all.

    Returns:
        At least one plan; the first of them tells what no chunk holds.
    """
    plan = plan_record(record, "interleaved", policy, tokenizer, max_tokens, coin=coin)
    lost = {ImageReason.CUT_OFF, ImageReason.OVER_CAP} & set(plan.image_drops.values())
    if not (lost or plan.document_drop is DocumentReason.CUT_OFF):
        return [plan]
    chosen = select(record.candidates, replace(policy, max_images=sys.maxsize), coin=coin)
    if chosen.document_drop is not None:
        return [RecordPlan(image_drops=chosen.image_drops, document_drop=chosen.document_drop)]
    cut = cut_document(
        record.texts,
        chosen.kept,
        tokenizer,
        max_tokens=max_tokens,
        max_images=policy.max_images,
    )
    drops = chosen.image_drops | dict.fromkeys(cut.over_cap, ImageReason.OVER_CAP)
    drops |= dict.fromkeys(cut.cut_off, ImageReason.CUT_OFF)
    if not cut.chunks:
        return [RecordPlan(image_drops=drops, document_drop=DocumentReason.CUT_OFF)]
    return [
        RecordPlan(
            chunk.input_ids, [i for i, _ in chunk.pairs], {} if number else drops, chunk=chunk
        )
        for number, chunk in enumerate(cut.chunks)
    ]


def plan_rest_of_chunk(
    record: Record,
    plan: RecordPlan,
    chunk: Chunk,
    tokenizer: MediaTokenizer,
    max_tokens: int,
    *,
    unusable: Mapping[int, ImageReason],
) -> RecordPlan:
    """A chunk without the images that turned out not to be usable.

    Args:
        record: the document.
        plan: of the chunk, as `plan_chunks` made it.
        chunk: that plan's.
        tokenizer: what makes ids.
        max_tokens: that a chunk may have.
        unusable: the images, by their number in the document, with the reason.
    """
    pairs = [pair for pair in chunk.pairs if pair[0] not in unusable]
    lost = {image: unusable[image] for image, _ in chunk.pairs if image in unusable}
    drops = plan.image_drops | lost
    if not pairs:
        gone = DocumentReason.IMAGES_UNDECODABLE
        return RecordPlan(image_drops=drops, document_drop=gone, chunk=chunk)
    places = [sentence - chunk.first for _, sentence in pairs]
    text = record.texts[chunk.first : chunk.last]
    tokens = interleaved_tokens(text, places, tokenizer, max_tokens)
    images = [image for image, _ in pairs]
    drops |= dict.fromkeys(images[tokens.num_images :], ImageReason.CUT_OFF)
    is_last = tokens.input_ids[-1] == tokenizer.image_id
    reason = DocumentReason.CUT_OFF if is_last or not tokens.num_images else None
    left = replace(chunk, pairs=pairs)
    return RecordPlan(tokens.input_ids, images[: tokens.num_images], drops, reason, left)
