"""Selection from a row of the samples table, without the document that it describes.

A row has sizes, assigned sentences and similarities, but no matrix. That decides a document unless
the byte filter takes some of its images and a better assignment of the rest may exist: it cannot
where each image that is left stands at its own best sentence and no two at the same. Documents
that are open stay marked so; a forecast that has to be exact reads them.

How the alignment came about is not in the table either. All documents of a conversion of MMC4 or
LAION agree in it, so that one of them tells; in others both answers are tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmdata.training_view.selection import Candidates, Selection, SelectionPolicy, select

#: Of the samples table, in the order in which `TableRow` takes them.
COLUMNS = ("sentences", "matched", "similarity", "margin", "image_bytes")


@dataclass(frozen=True, slots=True)
class Traits:
    """What a document says of itself and the samples table does not.

    Attributes:
        alignment: `assigned` or `given`.
        similarity_source: `mmc4`, `placeholder`, ...
    """

    alignment: str
    similarity_source: str


#: Why a table leaves a document open: small images are left out of it, or how the rest is
#: assigned depends on how its alignment came about.
Doubt = Literal["small-images", "alignment"]

#: What documents of conversions that may mix them can be.
ANY_TRAITS = (Traits("assigned", ""), Traits("given", "clip:"), Traits("given", "placeholder"))


@dataclass(frozen=True, slots=True)
class TableRow:
    """A document as the samples table has it; see `schemas.manifest.SAMPLES_COLUMNS`."""

    sentences: int
    matched: Sequence[int]
    similarity: Sequence[float]
    margin: Sequence[float | None]
    image_bytes: Sequence[int]

    def candidates(self, traits: Traits) -> Candidates:
        """The document's images as selection sees them."""
        return Candidates(
            image_bytes=self.image_bytes,
            alignment=traits.alignment,
            similarity_source=traits.similarity_source,
            matched=self.matched,
            similarity=self.similarity,
            num_sentences=self.sentences,
        )


def select_row(
    row: TableRow, traits: Sequence[Traits], policy: SelectionPolicy
) -> tuple[Selection, Doubt | None]:
    """What is used of a document, and what leaves that open.

    Args:
        row: of the table.
        traits: what the document may be; the first is taken.
        policy: what is asked of documents.
    """
    chosen = select(row.candidates(traits[0]), policy)
    others: list[Any] = [select(row.candidates(one), policy) for one in traits[1:]]
    if any(one.alignment == "assigned" for one in traits) and not is_settled(row, policy):
        return chosen, "small-images"
    if any(other != chosen for other in others):
        return chosen, "alignment"
    return chosen, None


def is_settled(row: TableRow, policy: SelectionPolicy) -> bool:
    """Whether the assignment over the images that the byte filter leaves is known."""
    left = [n for n, size in enumerate(row.image_bytes) if size >= policy.min_image_bytes]
    if len(left) in (0, len(row.image_bytes)) or row.sentences == 1:
        return True
    places = {row.matched[n] for n in left}
    margins = [row.margin[n] for n in left]
    return len(places) == len(left) and all(m is not None and m > 0.0 for m in margins)
