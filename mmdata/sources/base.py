"""What every input format turns its records into, and how a record is refused."""

from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.reasons import DocumentDrop, ImageNote


class RecordDropped(Exception):
    """A record that cannot become a document.

    Attributes:
        reason: what it is counted as.
        detail: one line: `$.path`, expected, got.
        fields: names of those that the record has, where they say more than the detail.
    """

    def __init__(self, reason: DocumentDrop, detail: str, *, fields: tuple[str, ...] = ()) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.fields = fields


class RecordError(Exception):
    """A record at which the run was asked to stop; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image that a record refers to.

    Attributes:
        name: its name as given; empty when there is none that could name a file.
        fields: all fields of the source, as raw JSON.
        problem: why the name cannot be used, or empty.
        embedded: the encoded file as base64, where the record holds it; empty otherwise.
        notes: remarks on how the record names it, counted where it is kept.
    """

    name: str
    fields: dict[str, msgspec.Raw]
    problem: str = ""
    embedded: str = ""
    notes: tuple[ImageNote, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """A record as documents with references to images; row i of the matrix is image i.

    Attributes:
        text_list: sentences, at least one that is not blank.
        images: in the order of the source.
        similarity: (n_images, n_sentences) float64, finite cosines; None where they are yet to be
            computed.
        similarity_source: where the similarities come from.
        alignment: `assigned` (to be computed) or `given` (then `matched` holds it).
        extras: the record's other fields, as raw JSON.
        matched: for `given`: the sentence of each image.
        notes: remarks (reason, detail) on what was set right.
        roles: of a conversation, where they are kept: who says each of `text_list`.
        group: what it is to stay together with, where that is asked for; None without one.
    """

    text_list: list[str]
    images: list[SourceImage]
    similarity: NDArray[np.float64] | None
    similarity_source: str
    alignment: Literal["assigned", "given"]
    extras: dict[str, msgspec.Raw]
    matched: list[int] | None = None
    notes: list[tuple[str, str]] = field(default_factory=list)
    roles: list[str] | None = None
    group: str | None = None
