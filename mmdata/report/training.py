"""What a training run would use of a shard, from its samples table alone.

Rows and counts are those of the forecast (`mmdata/forecast/`), the decision itself is
`mmdata.training_view.selection`, which the trainer's stream asks too. What the table does not say
(whether the alignment is given, what the similarities are) is read once a folder, from its first
document.
"""

from collections import Counter
from dataclasses import dataclass

from mmdata.forecast.table import TableRow, Traits
from mmdata.forecast.tally import TrainingTally
from mmdata.report.tables import ImageRows
from mmdata.training_view.plans import RecordPlan
from mmdata.training_view.selection import (
    DocumentReason,
    ImageReason,
    Selection,
    SelectionPolicy,
    select,
)

#: An image that would be used, in a document that is not.
DOCUMENT_DROPPED = "document-dropped"
#: A document of a split that is kept to measure on.
HELD_OUT = "held-out-split"
#: Names of splits that no one trains on.
_HELD_OUT_NAMES = frozenset(
    ("val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation", "holdout")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """What the documents of a folder have in common.

    Attributes:
        kind: `assigned` or `given`.
        similarity_source: as in the documents.
        captions: pairs, of which a trainer uses every one.
        held_out: a split to measure on, of which it uses none.
    """

    kind: str = "assigned"
    similarity_source: str = ""
    captions: bool = False
    held_out: bool = False


def is_held_out(split: object) -> bool:
    """Whether a split of this name is there to be measured on, not trained on."""
    return isinstance(split, str) and split.lower().replace("_", "-") in _HELD_OUT_NAMES


def images_dropped(tally: TrainingTally) -> Counter[str]:
    """The images that are not used, by reason; those of dropped documents too."""
    with_document = tally.images_of_dropped - tally.reasons_of_dropped.total()
    reasons = tally.images_dropped + tally.reasons_of_dropped
    return reasons + Counter({DOCUMENT_DROPPED: with_document})


def coin_drops(tally: TrainingTally, policy: SelectionPolicy) -> int:
    """Documents with one image that the coin leaves out of an epoch, on average."""
    return round(tally.single_image * (1 - policy.keep_single_image))


def verdicts(
    rows: ImageRows, row: int, alignment: Alignment, policy: SelectionPolicy
) -> tuple[DocumentReason | None, dict[int, str]]:
    """Why a document of a samples table is not used (None: it is), and which of its images not."""
    chosen, num_images = _selected(rows, row, alignment, policy)
    drops = {image: str(reason) for image, reason in chosen.image_drops.items()}
    if chosen.document_drop is not None:
        drops = {image: drops.get(image, DOCUMENT_DROPPED) for image in range(num_images)}
    return chosen.document_drop, drops


def training_use(rows: ImageRows, alignment: Alignment, policy: SelectionPolicy) -> TrainingTally:
    """What is used of the documents of one samples table, and why not the others.

    These are a forecast's counts, so that every document and image is in one of them.
    """
    use = TrainingTally()
    if alignment.held_out:
        use.looked_at = use.dropped[HELD_OUT] = len(rows.sentences)
        use.images = use.images_of_dropped = len(rows.similarity)
        return use
    for row in range(len(rows.sentences)):
        chosen, num_images = _selected(rows, row, alignment, policy)
        images = [image for image, _ in chosen.kept]
        use.add(RecordPlan([], images, chosen.image_drops, chosen.document_drop), num_images)
    if alignment.captions:
        use.single_image = 0  # no coin
    return use


def _selected(
    rows: ImageRows, row: int, alignment: Alignment, policy: SelectionPolicy
) -> tuple[Selection, int]:
    """What selection says of a document, and the number of its images."""
    start, end = rows.offsets[row], rows.offsets[row + 1]
    if alignment.captions:
        return Selection([(image, 0) for image in range(end - start)], {}, None), end - start
    document = TableRow(
        sentences=rows.sentences[row],
        matched=rows.matched[start:end],
        similarity=rows.similarity[start:end],
        margin=(),  # whether the answer is sure is not asked
        image_bytes=rows.image_bytes[start:end],
    )
    traits = Traits(alignment.kind, alignment.similarity_source)
    return select(document.candidates(traits), policy), end - start


#: For the words of a page: every reason there is, and what it means.
MEANINGS: dict[str, str] = {
    ImageReason.MISSING: "the document has no bytes for it",
    ImageReason.TOO_SMALL: "its file is below the trainer's least number of bytes",
    ImageReason.SURPLUS: "images outnumber sentences, and this one was left over",
    ImageReason.BELOW_SIMILARITY: "its similarity is below the trainer's threshold",
    ImageReason.OVER_CAP: "the document has more images than the trainer takes",
    DOCUMENT_DROPPED: "it would be used, but its document is not",
    HELD_OUT: "its split (val, test and the like) is there to measure on",
    DocumentReason.NO_IMAGES: "the document holds no image",
    DocumentReason.IMAGES_MISSING: "no image of it has bytes",
    DocumentReason.IMAGES_TOO_SMALL: "too few images are large enough, in bytes",
    DocumentReason.TOO_FEW_IMAGES: "it has fewer images than the trainer asks for",
    DocumentReason.BAD_ALIGNMENT: "similarities or indices do not fit the document",
}
