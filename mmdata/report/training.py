"""What a training run would use of a shard, from its samples table alone.

One function, so that another forecast can take its place: the decision itself is
`mmdata.selection`, which the trainer's stream asks too. What the table does not say (whether the
alignment is given, what the similarities are) is read once a folder, from its first document.
"""

from collections import Counter
from dataclasses import dataclass, field

from mmdata.report.tables import ImageRows
from mmdata.selection import Candidates, DocumentReason, ImageReason, SelectionPolicy, select

#: An image that would be used, in a document that is not.
DOCUMENT_DROPPED = "document-dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """What the documents of a folder have in common.

    Attributes:
        kind: `assigned` or `given`.
        similarity_source: as in the documents.
        captions: pairs, of which a trainer uses every one.
    """

    kind: str = "assigned"
    similarity_source: str = ""
    captions: bool = False


@dataclass(slots=True)
class TrainingUse:
    """Documents and images that a training run uses, and why not the others.

    Attributes:
        single_image: documents that are used with one image, about which a coin still decides.
    """

    documents: int = 0
    images: int = 0
    single_image: int = 0
    documents_dropped: Counter[str] = field(default_factory=Counter)
    images_dropped: Counter[str] = field(default_factory=Counter)

    def merge(self, other: "TrainingUse") -> None:
        """Take over what another one counted."""
        self.documents += other.documents
        self.images += other.images
        self.single_image += other.single_image
        self.documents_dropped.update(other.documents_dropped)
        self.images_dropped.update(other.images_dropped)


def verdicts(
    rows: ImageRows, row: int, alignment: Alignment, policy: SelectionPolicy
) -> tuple[DocumentReason | None, dict[int, str]]:
    """Why a document of a samples table is not used (None: it is), and which of its images not."""
    start, end = rows.offsets[row], rows.offsets[row + 1]
    if alignment.captions:
        return None, {}
    candidates = Candidates(
        image_bytes=rows.image_bytes[start:end],
        alignment=alignment.kind,
        similarity_source=alignment.similarity_source,
        matched=rows.matched[start:end],
        similarity=rows.similarity[start:end],
        num_sentences=rows.sentences[row],
    )
    chosen = select(candidates, policy)
    drops = {image: str(reason) for image, reason in chosen.image_drops.items()}
    if chosen.document_drop is not None:
        drops = {image: drops.get(image, DOCUMENT_DROPPED) for image in range(end - start)}
    return chosen.document_drop, drops


def training_use(rows: ImageRows, alignment: Alignment, policy: SelectionPolicy) -> TrainingUse:
    """What is used of the documents of one samples table."""
    use = TrainingUse()
    for row in range(len(rows.sentences)):
        reason, drops = verdicts(rows, row, alignment, policy)
        use.images_dropped.update(drops.values())
        if reason is not None:
            use.documents_dropped[str(reason)] += 1
            continue
        num_used = rows.offsets[row + 1] - rows.offsets[row] - len(drops)
        use.documents += 1
        use.images += num_used
        use.single_image += num_used == 1 and not alignment.captions
    return use


#: For the words of a page: every reason there is, and what it means.
MEANINGS: dict[str, str] = {
    ImageReason.MISSING: "the document has no bytes for it",
    ImageReason.TOO_SMALL: "its file is below the trainer's least number of bytes",
    ImageReason.SURPLUS: "images outnumber sentences, and this one was left over",
    ImageReason.BELOW_SIMILARITY: "its similarity is below the trainer's threshold",
    ImageReason.OVER_CAP: "the document has more images than the trainer takes",
    DOCUMENT_DROPPED: "it would be used, but its document is not",
    DocumentReason.NO_IMAGES: "the document holds no image",
    DocumentReason.IMAGES_MISSING: "no image of it has bytes",
    DocumentReason.IMAGES_TOO_SMALL: "too few images are large enough, in bytes",
    DocumentReason.TOO_FEW_IMAGES: "it has fewer images than the trainer asks for",
    DocumentReason.BAD_ALIGNMENT: "similarities or indices do not fit the document",
}
