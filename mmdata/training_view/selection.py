"""Which documents and images of a shard a training run uses, and why not the others.

The trainer's stream asks this for every sample, a forecast asks it for whole datasets from the
samples table alone; so it needs sizes and similarities, never pixels. The rules are
OpenFlamingo's, in its order: images below a size in bytes go; the rest is assigned one-to-one to
the sentences so that the total similarity is greatest; images left over, then images below the
threshold go (their sentences stay); the cap takes the first images as given. What differs: the
images that stay come out in the order of their sentences, since the k-th `<image>` tag of the
text has to mean the k-th picture (OpenFlamingo leaves them in the order of the rows, which pairs
half of all two-image documents wrongly); and nothing goes without a reason.

`given` alignments are structure and are kept as they are: no assignment, nothing left over. The
threshold applies to them only where `similarity_source` names a measured similarity (`mmc4`,
`laion`, `clip:…`); the number of a placeholder means nothing.

Cost: 20 us a document, most of it scipy's assignment.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from mmdata.alignment import Similarity, assign
from mmdata.errors import UserError
from mmdata.training_view import defaults

Surplus = Literal["drop", "argmax"]


class ImageReason(StrEnum):
    """Why a training run does not use an image of a document."""

    MISSING = "missing"
    """The document has no bytes for it."""
    TOO_SMALL = "too-few-bytes"
    SURPLUS = "surplus"
    """Images outnumber sentences, and this one was left over."""
    BELOW_SIMILARITY = "below-similarity"
    OVER_CAP = "over-max-images"
    CUT_OFF = "cut-off"
    """The text was cut before its tag."""
    UNDECODABLE = "undecodable"


class DocumentReason(StrEnum):
    """Why a training run does not use a document."""

    BAD_RECORD = "bad-record"
    """Not JSON, or not an object of the expected fields."""
    DAMAGED = "damaged"
    """The shard does not hold the sample where its index says."""
    NOT_INTERLEAVED = "not-interleaved"
    """The sample has no document in it, in a stream that reads documents."""
    NOT_A_PAIR = "not-a-pair"
    """Other than one image and one text, in a stream that reads captions."""
    UNSUPPORTED = "unsupported-record"
    """OpenFlamingo's ChatGPT records (`is_gpt`)."""
    NO_TEXT = "no-text"
    BAD_ALIGNMENT = "bad-alignment"
    """Similarities are absent, not finite or of the wrong shape; or a sentence does not exist."""
    NO_IMAGES = "no-images"
    IMAGES_MISSING = "images-missing"
    IMAGES_TOO_SMALL = "images-too-few-bytes"
    IMAGES_UNDECODABLE = "images-undecodable"
    BELOW_SIMILARITY = "below-similarity"
    TOO_FEW_IMAGES = "too-few-images"
    CUT_OFF = "cut-off"
    """Too few images are left where the text was cut."""
    SINGLE_IMAGE = "single-image"
    """The coin for documents with one image."""
    IMAGE_TOKEN_LAST = "image-token-last"
    """The only `<image>` tag is the last token: nothing follows that it could be learned from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionPolicy:
    """What a training run asks of documents."""

    min_similarity: float = defaults.MIN_SIMILARITY
    """Cosine, 0 to 1."""
    min_image_bytes: int = defaults.MIN_IMAGE_BYTES
    """Bytes of the encoded file. OpenFlamingo's `len // 1000 <= 10` drops up to 10,999."""
    max_images: int = defaults.MAX_IMAGES
    min_images: int = defaults.MIN_IMAGES
    keep_single_image: float = defaults.KEEP_SINGLE_IMAGE
    """Share of the documents with one image that is kept."""
    surplus: Surplus = "drop"
    """Images that outnumber the sentences: dropped, or put at their best sentence."""

    def __post_init__(self) -> None:
        if not self.min_similarity <= 1.0:
            raise UserError(
                f"similarity threshold {self.min_similarity:g}: similarities are 0 to 1: "
                f"did you mean {self.min_similarity / 100:.2f}?"
            )
        if not 1 <= self.min_images <= self.max_images:
            raise UserError(
                f"images of a document: expected 1 <= at least <= at most, got at least "
                f"{self.min_images} and at most {self.max_images}"
            )
        if not 0.0 <= self.keep_single_image <= 1.0:
            raise UserError(
                f"share of single-image documents to keep: expected 0 to 1, got "
                f"{self.keep_single_image:g}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The images of a document, as selection sees them.

    Attributes:
        image_bytes: size of each encoded file; None where the document has no bytes.
        alignment: `assigned` or `given`.
        similarity_source: where the similarities come from.
        matrix: (n_images, n_sentences). With it, `assigned` documents are assigned anew over what
            the byte filter left.
        matched: the sentence of each image: of `given` documents, and of `assigned` ones without
            a matrix (the samples table has none), whose stored assignment is then taken. That is
            the same unless the byte filter drops an image.
        similarity: of each image with its matched sentence.
        num_sentences: None where unknown.
    """

    image_bytes: Sequence[int | None]
    alignment: str = "assigned"
    similarity_source: str = ""
    matrix: Similarity | None = None
    matched: Sequence[int] | None = None
    similarity: Sequence[float] | None = None
    num_sentences: int | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """What is used of a document.

    Attributes:
        kept: (image, sentence) in the order of the sentences, ties in the order of the images.
            Several images share a sentence only in `given` documents and with surplus `argmax`.
        image_drops: why each of the other images is not used.
        document_drop: why nothing of the document is used; None when it is.
    """

    kept: list[tuple[int, int]] = field(default_factory=list)
    image_drops: dict[int, ImageReason] = field(default_factory=dict)
    document_drop: DocumentReason | None = None


class _BadAlignmentError(ValueError):
    """The similarities or indices do not fit the document."""


#: (image, sentence, similarity that the threshold applies to or None), in the order of the rows.
_Match = tuple[int, int, float | None]


def select(
    candidates: Candidates,
    policy: SelectionPolicy,
    *,
    coin: float | None = None,
    unusable: Mapping[int, ImageReason] | None = None,
) -> Selection:
    """Decide on one document.

    Args:
        candidates: its images.
        policy: what is asked of them.
        coin: in [0, 1); a document with one image is kept when it lies below
            `keep_single_image`. None keeps them all (validation).
        unusable: images that turned out not to be usable, with the reason.
    """
    drops = dict(unusable or {})
    for image, size in enumerate(candidates.image_bytes):
        if image not in drops and (size is None or size < policy.min_image_bytes):
            drops[image] = ImageReason.MISSING if size is None else ImageReason.TOO_SMALL
    left = [image for image in range(len(candidates.image_bytes)) if image not in drops]
    try:
        matches = _match(candidates, left, policy, drops)
    except _BadAlignmentError:
        return Selection([], drops, DocumentReason.BAD_ALIGNMENT)
    kept: list[tuple[int, int]] = []
    for image, sentence, similarity in matches:
        if similarity is not None and not similarity >= policy.min_similarity:
            drops[image] = ImageReason.BELOW_SIMILARITY
        elif len(kept) == policy.max_images:
            drops[image] = ImageReason.OVER_CAP
        else:
            kept.append((image, sentence))
    if len(kept) < policy.min_images:
        return Selection([], drops, _too_few(len(candidates.image_bytes), policy, drops))
    if not _coin_keeps(len(kept), policy, coin):
        return Selection([], drops, DocumentReason.SINGLE_IMAGE)
    return Selection(sorted(kept, key=lambda pair: (pair[1], pair[0])), drops)


def judge_cut(
    num_images: int, policy: SelectionPolicy, *, image_is_last: bool, coin: float | None = None
) -> DocumentReason | None:
    """The rules that apply once more, to what is left of a document whose text was cut.

    Args:
        num_images: tags in the text that is left.
        policy: what is asked.
        image_is_last: whether the last token of the text is an `<image>` tag.
        coin: as in `select`; the same number there and here, so that it is one coin.
    """
    if num_images < policy.min_images:
        return DocumentReason.CUT_OFF
    if not _coin_keeps(num_images, policy, coin):
        return DocumentReason.SINGLE_IMAGE
    if num_images == 1 and image_is_last:
        return DocumentReason.IMAGE_TOKEN_LAST
    return None


def coin(seed: int, stream: str, epoch: int, key: str) -> float:
    """A number in [0, 1) that is the same wherever and whenever the sample is looked at.

    Args:
        seed: of the run.
        stream: its name.
        epoch: counted from 0; each epoch has another number.
        key: of the sample.
    """
    text = f"{seed}\0{stream}\0{epoch}\0{key}".encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return float((int.from_bytes(digest, "big") >> 11) / 2**53)


def _coin_keeps(num_images: int, policy: SelectionPolicy, coin: float | None) -> bool:
    return num_images != 1 or coin is None or coin < policy.keep_single_image


def _match(
    candidates: Candidates,
    left: list[int],
    policy: SelectionPolicy,
    drops: dict[int, ImageReason],
) -> list[_Match]:
    """The sentence of each image that is left; those left over go into `drops`."""
    if not left:
        return []
    if candidates.alignment == "given":
        return _given(candidates, left)
    if candidates.matrix is not None:
        matches = _assigned_anew(_checked_matrix(candidates), left, policy.surplus)
    else:
        matches = _assigned_before(candidates, left, policy.surplus)
    placed = {image for image, _, _ in matches}
    drops.update({image: ImageReason.SURPLUS for image in left if image not in placed})
    return matches


def _assigned_anew(matrix: Similarity, left: list[int], surplus: Surplus) -> list[_Match]:
    rest = matrix[left]
    if surplus == "argmax":
        pairs = list(enumerate(assign(rest)))
    else:
        rows, columns = linear_sum_assignment(rest, maximize=True)
        pairs = list(zip(rows.tolist(), columns.tolist(), strict=True))
    return [(left[row], sentence, float(rest[row, sentence])) for row, sentence in pairs]


def _assigned_before(candidates: Candidates, left: list[int], surplus: Surplus) -> list[_Match]:
    """The stored assignment, for want of a matrix.

    Of images that share a sentence, all but one were left over and went to their argmax. The one
    that was assigned is the most similar: were another more so, exchanging the two would give a
    greater total.
    """
    matched, similarity = _stored(candidates)
    if similarity is None:
        raise _BadAlignmentError
    matches: list[_Match] = [(image, matched[image], similarity[image]) for image in left]
    if surplus == "argmax":
        return matches
    best: dict[int, int] = {}
    for image in left:
        rival = best.setdefault(matched[image], image)
        if similarity[image] > similarity[rival]:
            best[matched[image]] = image
    return [match for match in matches if best[match[1]] == match[0]]


def _given(candidates: Candidates, left: list[int]) -> list[_Match]:
    matched, similarity = _stored(candidates)
    source = candidates.similarity_source
    if similarity is None or not (source in ("mmc4", "laion") or source.startswith("clip:")):
        return [(image, matched[image], None) for image in left]
    return [(image, matched[image], similarity[image]) for image in left]


def _stored(candidates: Candidates) -> tuple[Sequence[int], Sequence[float] | None]:
    """`matched` and `similarity`, checked."""
    num_images, matched = len(candidates.image_bytes), candidates.matched
    if matched is None or len(matched) != num_images:
        raise _BadAlignmentError
    most = candidates.num_sentences
    if any(sentence < 0 or (most is not None and sentence >= most) for sentence in matched):
        raise _BadAlignmentError
    similarity = candidates.similarity
    if similarity is not None and len(similarity) != num_images:
        raise _BadAlignmentError
    return matched, similarity


def _checked_matrix(candidates: Candidates) -> Similarity:
    matrix = candidates.matrix
    if matrix is None or matrix.ndim != 2 or len(matrix) != len(candidates.image_bytes):
        raise _BadAlignmentError
    columns = matrix.shape[1]
    if columns == 0 or candidates.num_sentences not in (None, columns):
        raise _BadAlignmentError
    if not np.isfinite(matrix).all():
        raise _BadAlignmentError
    return matrix


def _too_few(
    num_images: int, policy: SelectionPolicy, drops: Mapping[int, ImageReason]
) -> DocumentReason:
    """The last filter that took images is the one that left too few, if there ever were enough."""
    if num_images < policy.min_images:
        return DocumentReason.TOO_FEW_IMAGES if num_images else DocumentReason.NO_IMAGES
    reasons = set(drops.values())
    for of_image, of_document in (
        (ImageReason.BELOW_SIMILARITY, DocumentReason.BELOW_SIMILARITY),
        (ImageReason.SURPLUS, DocumentReason.TOO_FEW_IMAGES),
        (ImageReason.TOO_SMALL, DocumentReason.IMAGES_TOO_SMALL),
        (ImageReason.UNDECODABLE, DocumentReason.IMAGES_UNDECODABLE),
    ):
        if of_image in reasons:
            return of_document
    return DocumentReason.IMAGES_MISSING
