"""The rule that ties the samples table to the documents: SIDE013, column by column.

The table is what reports, forecasts and searches for duplicates read instead of the pictures, so
a row that says something else than its document misleads all of them.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from mmdata.shards.columns import text_columns
from mmdata.validation.document_rules import similarity_array
from mmdata.validation.documents import Parsed, Problem
from mmdata.validation.sidecar_rules import Table

#: Values in the table may be rounded to 6 decimals.
_TOLERANCE = 2e-6


def row_fits_document(
    table: Table, row: int, parsed: Parsed, contents: Sequence[bytes | None]
) -> Iterator[Problem]:
    """SIDE013.

    Args:
        table: the samples table.
        row: of this document.
        parsed: the document, which has passed the rules of its shape.
        contents: bytes of each image; None where they could not be had.
    """
    document = parsed.document
    said = {
        **text_columns([text.encode("utf-8", "surrogatepass") for text in document.text_list]),
        "matched": [image.matched_text_index for image in document.image_info],
        "similarity": [image.matched_sim for image in document.image_info],
        "margin": margins(parsed),
        "width": [image.width for image in document.image_info],
        "height": [image.height for image in document.image_info],
        "format": [image.format for image in document.image_info],
        "image_sha256": [image.sha256 for image in document.image_info],
    }
    if all(data is not None for data in contents):
        said["image_bytes"] = [len(data) for data in contents if data is not None]
    for column, expected in said.items():
        got = table[column][row]
        if expected != got and not _close(expected, got):
            yield f"samples[{row}].{column}", f"{expected!r}, as in the document", f"{got!r}"


def margins(parsed: Parsed) -> list[float | None]:
    """matched_sim of each image minus its best other sentence; None if there is no other."""
    matrix = similarity_array(parsed)
    indices = [image.matched_text_index for image in parsed.document.image_info]
    matched = [index for index in indices if isinstance(index, int)]
    if matrix is None or len(matched) != len(indices) or matrix.shape[1] < 2:
        return [None] * len(indices)
    rows = np.arange(len(matched))
    own = matrix[rows, matched]
    matrix[rows, matched] = -np.inf
    margin: list[float | None] = (own - matrix.max(axis=1)).tolist()
    return margin


def _close(expected: object, got: object) -> bool:
    """Whether two lists of numbers differ by rounding alone."""
    if not isinstance(expected, list) or not isinstance(got, list) or len(expected) != len(got):
        return False
    return all(
        (a is None and b is None)
        or (isinstance(a, float) and isinstance(b, float) and abs(a - b) <= _TOLERANCE)
        for a, b in zip(expected, got, strict=True)
    )
