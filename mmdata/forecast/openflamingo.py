"""What OpenFlamingo's loader (train/data_utils.py, commit 655f693) would make of shards.

Its rules in its order, on anything that a shard may hold: Python's json reads a document, base64
is read leniently (what is no letter of the alphabet, line breaks too, is passed over), an image
without bytes or below 11,000 of them is left out, and whatever raises takes its whole document
along: an image that Pillow cannot decode, an `image_base64` that is null, a matrix that numpy or
scipy refuse. A matrix may have more rows or columns than there are images and sentences. What is
left is assigned one-to-one, whatever `alignment` says; images below the threshold go, the first six
stay. Then it stacks the pictures in the order of the document and writes the tags in the order of
the sentences: where these differ, the k-th tag gets another tag's picture. A media tag that stands
in a text as text is a tag to it: it takes a picture, and counts where a document with one tag
would be subject to the coin.

Of captions: pictures by their extension (jpg, png, jpeg; never webp), decoded like everything else
beside them; no coin, no threshold.

Not said here: that its loader stops at the first shard's end with webdataset 0.2.96 and later, and
what it does to ChatGPT records, which are counted and left alone.
"""

import base64
import binascii
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment

from mmdata.forecast.in_order import read_in_order
from mmdata.forecast.shard import media_tokenizer
from mmdata.forecast.tally import add_counts
from mmdata.images.pillow import PILLOW_ERRORS
from mmdata.training_view.plans import MAX_TOKENS
from mmdata.training_view.records import RecordRule
from mmdata.training_view.selection import DocumentReason, ImageReason, SelectionPolicy
from mmdata.training_view.sequence import EOC_TOKEN, MEDIA_TOKEN, MediaTokenizer

#: `len(rawbytes) // 1000 <= 10` is left out.
MIN_IMAGE_BYTES = 11_000
MAX_IMAGES = 6
#: Its Pillow refuses twice this; pictures that large are not decoded here.
_MAX_PIXELS = 200_000_000
#: The members that it takes for a caption's picture, the first that is there.
_PICTURES = ("jpg", "png", "jpeg")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTask:
    """One shard to look at.

    Attributes:
        path: of the tar.
        rule: documents or captions.
        min_similarity: `--mmc4_textsim_threshold`.
        min_images: `--mmc4_min_num_images`.
        max_images: `--mmc4_max_num_images`.
        tokenizer: name or folder; None: the text is not cut.
        rows: the samples to look at, by their place in the shard; None: all.
    """

    path: str
    rule: RecordRule = "interleaved"
    min_similarity: float
    min_images: int = 1
    max_images: int = MAX_IMAGES
    tokenizer: str | None = None
    rows: tuple[int, ...] | None = None


@dataclass(slots=True)
class PeerTally:
    """Counts of some samples; see `schemas.forecast.PeerForecast`."""

    looked_at: int = 0
    used: int = 0
    single_image: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    images_used: int = 0
    images_dropped: Counter[str] = field(default_factory=Counter)
    mispaired: int = 0
    extra_tags: int = 0

    def merge(self, other: "PeerTally") -> None:
        """Add another's counts to these."""
        add_counts(self, other)


class _Lost(Exception):
    """OpenFlamingo's loader would raise on the sample, log it and go on."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def judge_shard(task: PeerTask) -> PeerTally:
    """The counts of one shard.

    Raises:
        BadInputError: the shard cannot be read.
    """
    tally = PeerTally()
    tokenizer = media_tokenizer(task.tokenizer) if task.tokenizer else None
    policy = SelectionPolicy(
        min_similarity=task.min_similarity,
        min_image_bytes=MIN_IMAGE_BYTES,
        max_images=task.max_images,
        min_images=task.min_images,
    )
    for members in read_in_order(task.path, task.rows):
        if task.rule == "caption":
            judge_pair(members, tally)
        else:
            judge(members, policy, tokenizer, tally)
    return tally


def judge(
    members: Mapping[str, memoryview],
    policy: SelectionPolicy,
    tokenizer: MediaTokenizer | None,
    tally: PeerTally,
) -> None:
    """Count one document."""
    tally.looked_at += 1
    image_drops: dict[int, ImageReason] = {}
    try:
        info = _document(members)
        pairs = _assigned(info, policy, image_drops)
        tags, text = _with_tags(info["text_list"], pairs)
        num_tags = _tags_left(text, tags, tokenizer, policy)
    except _Lost as lost:
        tally.dropped[lost.reason] += 1
        return
    cut = [tag for tag in tags[num_tags:] if tag is not None]
    image_drops |= dict.fromkeys(cut, ImageReason.CUT_OFF)
    stacked = [image for image, _ in pairs]
    tally.used += 1
    tally.single_image += num_tags == 1
    tally.images_used += len(stacked) - len(cut)
    tally.images_dropped.update(reason.value for reason in image_drops.values())
    meant = enumerate(tags[:num_tags])
    tally.mispaired += any(tag is not None and stacked[k : k + 1] != [tag] for k, tag in meant)
    tally.extra_tags += len(tags) > len(stacked) or any(
        isinstance(text, str) and EOC_TOKEN in text for text in info["text_list"]
    )


def _document(members: Mapping[str, memoryview]) -> dict[str, Any]:
    """The record, as far as it is asked for what it holds."""
    if "json" not in members:
        raise _Lost(DocumentReason.NOT_INTERLEAVED.value)
    try:
        info = json.loads(bytes(members["json"]))
    except (ValueError, RecursionError) as error:
        raise _Lost(DocumentReason.BAD_RECORD.value) from error
    if not isinstance(info, dict):
        raise _Lost(DocumentReason.BAD_RECORD.value)
    if "is_gpt" in info:
        raise _Lost(DocumentReason.UNSUPPORTED.value)
    if "similarity_matrix" not in info:
        raise _Lost("no-similarity-matrix")
    if not isinstance(info.get("text_list"), list) or "image_info" not in info:
        raise _Lost(DocumentReason.BAD_RECORD.value)
    return info


def _assigned(
    info: dict[str, Any], policy: SelectionPolicy, drops: dict[int, ImageReason]
) -> list[tuple[int, int]]:
    """(image, sentence) of the pictures that it stacks, in the order of the images."""
    usable = _usable_images(info["image_info"], drops)
    try:
        similarity = np.array(info["similarity_matrix"])[usable]
        rows, columns = linear_sum_assignment(-similarity)
        matches = list(zip(rows.tolist(), columns.tolist(), strict=True))
        scores = [similarity[row][column] for row, column in matches]
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise _Lost("bad-matrix") from error
    drops |= {image: ImageReason.SURPLUS for image in usable}
    pairs: list[tuple[int, int]] = []
    for (row, sentence), score in zip(matches, scores, strict=True):
        image = usable[row]
        del drops[image]
        if score < policy.min_similarity:
            drops[image] = ImageReason.BELOW_SIMILARITY
        elif len(pairs) == policy.max_images:
            drops[image] = ImageReason.OVER_CAP
        else:
            pairs.append((image, sentence))
    if not pairs:
        raise _Lost(DocumentReason.BELOW_SIMILARITY.value)
    return pairs


def _usable_images(listed: Any, drops: dict[int, ImageReason]) -> list[int]:
    """The images that are there, large enough and whole."""
    usable = []
    try:
        for number, image in enumerate(listed):
            if "image_base64" not in image:
                drops[number] = ImageReason.MISSING
                continue
            data = _decoded(image["image_base64"])
            if len(data) < MIN_IMAGE_BYTES:
                drops[number] = ImageReason.TOO_SMALL
                continue
            if not _is_image(data):
                raise _Lost("one-undecodable-image")
            usable.append(number)
    except TypeError as error:  # what is listed is no list, or an image of it no object
        raise _Lost(DocumentReason.BAD_RECORD.value) from error
    if not usable:
        if not drops:
            raise _Lost(DocumentReason.NO_IMAGES.value)
        small = ImageReason.TOO_SMALL in drops.values()
        reason = DocumentReason.IMAGES_TOO_SMALL if small else DocumentReason.IMAGES_MISSING
        raise _Lost(reason.value)
    return usable


def _decoded(text: Any) -> bytes:
    """Base64 as Python reads it by default: what is not of the alphabet is passed over."""
    if not isinstance(text, str):
        raise _Lost("base64-no-text")
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError) as error:
        raise _Lost("bad-base64") from error


def _is_image(data: bytes) -> bool:
    try:
        with Image.open(BytesIO(data)) as opened:
            if opened.width * opened.height <= _MAX_PIXELS:
                opened.convert("RGB")
    except PILLOW_ERRORS:
        return False
    return True


def _with_tags(texts: list[Any], pairs: list[tuple[int, int]]) -> tuple[list[int | None], str]:
    """The tags of the whole text in its order, and the text.

    A tag is the picture that it was written for, or None where it stood in the text before.
    """
    own = {sentence: image for image, sentence in pairs}
    if any(sentence >= len(texts) for sentence in own):
        raise _Lost("no-such-sentence")
    parts: list[str] = []
    tags: list[int | None] = []
    for number, text in enumerate(texts):
        if number in own:
            text = f"{EOC_TOKEN}{MEDIA_TOKEN}{text}"
            tags.append(own[number])
        elif not isinstance(text, str):
            raise _Lost(DocumentReason.BAD_RECORD.value)
        parts.append(text)
        tags += [None] * (text.count(MEDIA_TOKEN) - (number in own))
    return tags, " ".join(parts).replace(EOC_TOKEN, "", 1)


def _tags_left(
    text: str,
    tags: list[int | None],
    tokenizer: MediaTokenizer | None,
    policy: SelectionPolicy,
) -> int:
    """Tags in the tokens that it keeps of a text; all of them without a tokenizer."""
    number, is_last = len(tags), False
    if tokenizer is not None:
        for tag in (MEDIA_TOKEN, EOC_TOKEN):
            text = text.replace(f" {tag}", tag)
        text = text.replace(f"{MEDIA_TOKEN} ", MEDIA_TOKEN)
        try:
            ids = tokenizer.encode_with_tags(text, MAX_TOKENS["interleaved"])
        except (TypeError, ValueError) as error:  # half of a surrogate pair
            raise _Lost(DocumentReason.BAD_RECORD.value) from error
        number, is_last = ids.count(tokenizer.image_id), ids[-1] == tokenizer.image_id
    if number < policy.min_images:
        few = DocumentReason.TOO_FEW_IMAGES if number == len(tags) else DocumentReason.CUT_OFF
        raise _Lost(few.value)
    if number == 1 and is_last:
        raise _Lost(DocumentReason.IMAGE_TOKEN_LAST.value)
    return number


def judge_pair(members: Mapping[str, memoryview], tally: PeerTally) -> None:
    """Count one picture with its caption."""
    tally.looked_at += 1
    try:
        caption = _caption(members)
    except _Lost as lost:
        tally.dropped[lost.reason] += 1
        return
    tally.used += 1
    tally.images_used += 1
    tally.extra_tags += MEDIA_TOKEN in caption or EOC_TOKEN in caption


def _caption(members: Mapping[str, memoryview]) -> str:
    """The text of a pair whose members are all decoded, as its loader does before it takes two."""
    pictures = [kind for kind in _PICTURES if kind in members]
    if not pictures:
        kinds = sorted(kind for kind in members if kind in ("webp", "gif", "bmp", "tif", "tiff"))
        raise _Lost(f"picture-{kinds[0]}" if kinds else DocumentReason.NOT_A_PAIR.value)
    if "txt" not in members:
        raise _Lost(DocumentReason.NO_TEXT.value)
    try:
        caption = str(members["txt"], "utf-8")
        if "json" in members:
            json.loads(bytes(members["json"]))
    except (ValueError, RecursionError) as error:
        raise _Lost(DocumentReason.BAD_RECORD.value) from error
    if not all(_is_image(bytes(members[kind])) for kind in pictures):
        raise _Lost("one-undecodable-image")
    return caption


def coin_drops(tally: PeerTally) -> float:
    """Documents with one image that its coin drops each epoch, on average."""
    return tally.single_image * (1 - SelectionPolicy().keep_single_image)


#: Reasons of selection in the words of what OpenFlamingo logs; others are as they are.
IN_WORDS = {
    DocumentReason.IMAGES_TOO_SMALL.value: "every image below 11,000 bytes",
    DocumentReason.BELOW_SIMILARITY.value: "every image below the threshold",
    "one-undecodable-image": "one image that Pillow cannot decode",
    "no-similarity-matrix": "no similarity_matrix",
    "bad-matrix": "a similarity_matrix that it cannot use",
    "no-such-sentence": "an image assigned to a column beyond the sentences",
    "base64-no-text": "an image_base64 that is null or no text",
    "bad-base64": "an image_base64 that Python cannot decode",
    "picture-webp": "the picture is WebP, which it never looks for (--image-format jpeg)",
    DocumentReason.UNSUPPORTED.value: "a ChatGPT record (not judged)",
}
