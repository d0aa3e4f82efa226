"""From a checked document of one text and one image to a sample of layout `pairs`.

The members are `{key}.jpg|png|webp`, `{key}.txt` and `{key}.json`, as img2dataset writes them. A
row of the samples table is about the picture: its offset, size and sha256.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pybase64

from mmdata.samples.assemble import Draft, Outcome, Picture, Scores, drop, group_row
from mmdata.samples.encode import picture_columns
from mmdata.shards.columns import text_columns
from mmdata.sources.laion_rows import carried
from schemas.document import FORMAT_VERSION
from schemas.laion import Pair
from schemas.reasons import DocumentDrop, ImageDrop

EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp"}


@dataclass(slots=True)
class PairOutcome:
    """What became of a row.

    Attributes:
        outcome: as of any record; its `parts` are empty.
        members: (extension, data) of the sample; empty when it was dropped.
    """

    outcome: Outcome
    members: list[tuple[str, list[bytes]]] = field(default_factory=list)


def drop_below(draft: Draft, scores: Scores | None) -> Scores | None:
    """Drop a picture whose similarity to its text is below the policy's.

    Args:
        draft: of one text and at most one picture; changed where the picture goes.
        scores: computed; None for the document's own.

    Returns:
        The scores of what remains, None where none were given.
    """
    threshold = draft.policy.min_similarity
    own = draft.document.similarity
    matrix = scores.matrix if scores else own
    if threshold is None or matrix is None or not draft.pictures or draft.outcome.drop:
        return scores
    value = float(matrix[0, 0])
    if value >= threshold:
        return scores
    detail = f"similarity {value:.4f} is below --min-similarity {threshold}"
    draft.outcome.dropped_images[draft.pictures[0].index] = (ImageDrop.LOW_SIMILARITY, detail)
    draft.pictures, draft.pixels = [], []
    return Scores(scores.matrix[:0], scores.source) if scores else None


def finish_pair(draft: Draft, key: str, scores: Scores | None = None) -> PairOutcome:
    """Encode a checked pair, by the source's similarity or by a computed one.

    Args:
        draft: of one text and at most one picture.
        key: of the sample.
        scores: computed; None for the document's own.
    """
    document, outcome = draft.document, draft.outcome
    if outcome.drop:
        return PairOutcome(outcome)
    if not draft.pictures:
        reasons = ", ".join(sorted(str(reason) for reason, _ in outcome.dropped_images.values()))
        drop(draft, DocumentDrop.NO_IMAGES_LEFT, f"its image was dropped: {reasons}")
        return PairOutcome(outcome)
    (picture,) = draft.pictures
    matrix = scores.matrix if scores else document.similarity
    if matrix is None:
        raise ValueError("a pair without similarity: it has to be scored")
    similarity = float(matrix[0, 0])
    source = scores.source if scores else document.similarity_source
    data = pybase64.b64decode(picture.base64)
    caption = document.text_list[0].encode("utf-8")
    metadata = _metadata(draft, picture, key, similarity, source)
    members = [
        (EXTENSIONS[picture.format], [data]),
        ("txt", [caption]),
        ("json", [metadata]),
    ]
    outcome.row = _row(picture, caption, similarity) | group_row(draft)
    return PairOutcome(outcome, members)


def _metadata(draft: Draft, picture: Picture, key: str, similarity: float, source: str) -> bytes:
    document = draft.document
    url: str = msgspec.json.decode(document.images[0].fields["raw_url"])
    pair = Pair(
        format_version=FORMAT_VERSION,
        key=key,
        caption=document.text_list[0],
        url=url or None,
        width=picture.width,
        height=picture.height,
        original_width=None if picture.reencoded else picture.width,
        original_height=None if picture.reencoded else picture.height,
        format=picture.format,  # type: ignore[arg-type]
        sha256=picture.sha256,
        similarity=similarity,
        similarity_source=source,
    )
    fields: dict[str, Any] = {name: getattr(pair, name) for name in Pair.__struct_fields__}
    fields |= carried(document.extras, fields)
    return msgspec.json.encode(fields)


def _row(picture: Picture, caption: bytes, similarity: float) -> dict[str, Any]:
    """The samples table's row, but for key, offset and provenance."""
    return {
        "size": picture.num_bytes,
        "sha256": picture.sha256,
        **text_columns([caption]),
        "matched": [0],
        "similarity": [similarity],
        "margin": [None],
        **picture_columns([picture]),
    }
