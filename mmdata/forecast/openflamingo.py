"""What OpenFlamingo's loader (train/data_utils.py, commit 655f693) would make of shards.

Its rules in its order: an image without bytes or below 11,000 of them is left out; an image that
Pillow cannot decode takes its whole document along; what is left is assigned one-to-one, whatever
`alignment` says; images below the threshold go, the first six stay. Then it stacks the pictures in
the order of the document and writes the tags in the order of the sentences: where these differ,
the k-th tag gets another tag's picture. A media tag that stands in a text as text is a tag to it.

Its selection is ours but for that, so it is `mmdata.usage.plans` that is asked, as OpenFlamingo
would set it. Not said here: that its loader stops at the first shard's end with webdataset 0.2.96
and later, and what it does to ChatGPT records, which are counted and left alone.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO

from PIL import Image

from mmdata.forecast.shard import media_tokenizer, read_members
from mmdata.images.pillow import PILLOW_ERRORS
from mmdata.selection import DocumentReason, ImageReason, SelectionPolicy
from mmdata.usage.plans import MAX_TOKENS, plan_record
from mmdata.usage.records import Record, UnusableError, image_bytes, read_record
from mmdata.usage.tokens import EOC_TOKEN, MEDIA_TOKEN, MediaTokenizer

#: `len(rawbytes) // 1000 <= 10` is left out.
MIN_IMAGE_BYTES = 11_000
MAX_IMAGES = 6
#: Its Pillow refuses twice this; pictures that large are not decoded here.
_MAX_PIXELS = 200_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTask:
    """One shard to look at.

    Attributes:
        path: of the tar.
        min_similarity: `--mmc4_textsim_threshold`.
        min_images: `--mmc4_min_num_images`.
        max_images: `--mmc4_max_num_images`.
        tokenizer: name or folder; None: the text is not cut.
        rows: the documents to look at, by their place in the shard; None: all.
    """

    path: str
    min_similarity: float
    min_images: int = 1
    max_images: int = MAX_IMAGES
    tokenizer: str | None = None
    rows: tuple[int, ...] | None = None


@dataclass(slots=True)
class PeerTally:
    """Counts of some documents; see `schemas.forecast.PeerForecast`."""

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
        for name in ("looked_at", "used", "single_image", "images_used", "mispaired", "extra_tags"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.dropped.update(other.dropped)
        self.images_dropped.update(other.images_dropped)


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
    for members in read_members(task.path, task.rows):
        judge(members, policy, tokenizer, tally)
    return tally


def judge(
    members: Mapping[str, memoryview],
    policy: SelectionPolicy,
    tokenizer: MediaTokenizer | None,
    tally: PeerTally,
) -> None:
    """Count one sample."""
    tally.looked_at += 1
    try:
        record = read_record(members, "interleaved")
    except UnusableError as error:
        tally.dropped[error.reason.value] += 1
        return
    if record.candidates.matrix is None:
        tally.dropped["no-similarity-matrix"] += 1
        return
    if not all(_decodes(record, image) for image in range(len(record.images))):
        tally.dropped["one-undecodable-image"] += 1
        return
    record = replace(record, candidates=replace(record.candidates, alignment="assigned"))
    plan = plan_record(record, "interleaved", policy, tokenizer, MAX_TOKENS["interleaved"])
    if plan.document_drop is not None:
        tally.dropped[plan.document_drop.value] += 1
        return
    cut = [image for image, why in plan.image_drops.items() if why is ImageReason.CUT_OFF]
    tally.used += 1
    tally.single_image += len(plan.images) == 1
    tally.images_used += len(plan.images)
    tally.images_dropped.update(reason.value for reason in plan.image_drops.values())
    stacked = sorted([*plan.images, *cut])
    tally.mispaired += stacked[: len(plan.images)] != plan.images
    tally.extra_tags += any(MEDIA_TOKEN in text or EOC_TOKEN in text for text in record.texts)


def _decodes(record: Record, image: int) -> bool:
    """Whether an image does not take its document along: small ones are never decoded."""
    size, data = record.candidates.image_bytes[image], record.images[image]
    if size is None or size < MIN_IMAGE_BYTES or data is None:
        return True
    try:
        with Image.open(BytesIO(image_bytes(data))) as opened:
            if opened.width * opened.height <= _MAX_PIXELS:
                opened.convert("RGB")
    except PILLOW_ERRORS:
        return False
    return True


def coin_drops(tally: PeerTally) -> float:
    """Documents with one image that its coin drops each epoch, on average."""
    return tally.single_image * (1 - SelectionPolicy().keep_single_image)


#: Reasons of selection in the words of what OpenFlamingo logs; others are as they are.
IN_WORDS = {
    DocumentReason.IMAGES_TOO_SMALL.value: "every image below 11,000 bytes",
    DocumentReason.BELOW_SIMILARITY.value: "every image below the threshold",
    "one-undecodable-image": "one image that Pillow cannot decode",
    "no-similarity-matrix": "no similarity_matrix",
    DocumentReason.UNSUPPORTED.value: "a ChatGPT record (not judged)",
}
