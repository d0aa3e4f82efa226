"""The rules of a document that can be read: fields, matrix, alignment, order of the images.

A rule is a function that takes a document (and its matrix, where it asks about values) and yields
what is wrong with it; the table of rules says which code it stands for. What only we promise
(`format_version`, the order of images, a kept `alignment`) is asked of our own documents only.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mmdata.alignment import TOTAL_TOLERANCE, assign, assigned_total
from mmdata.validation.documents import Parsed, Problem
from schemas.document import FORMAT_VERSION

Matrix = NDArray[np.float64]
"""(n_images, n_sentences), cosine similarities."""

#: What OpenFlamingo's tokenizer takes for an image, or the end of a chunk, wherever it stands.
_MEDIA_TAGS = ("<image>", "<|endofchunk|>")
#: Largest difference between matched_sim and the matrix (values are rounded to 6 decimals).
_SIMILARITY_TOLERANCE = 1e-6
#: A cosine may overrun 1 by the rounding of float16 features.
_LARGEST_COSINE = 1.0 + 1e-3


def has_sentences(parsed: Parsed) -> Iterator[Problem]:
    """DOC002."""
    if not parsed.document.text_list:
        yield "$.text_list", "at least 1 sentence", "0"


def known_version(parsed: Parsed) -> Iterator[Problem]:
    """DOC003."""
    version = parsed.document.format_version
    if parsed.ours and version != FORMAT_VERSION:
        yield "$.format_version", f"{FORMAT_VERSION!r}", f"{version!r}"


def images_in_order(parsed: Parsed) -> Iterator[Problem]:
    """DOC004: OpenFlamingo's loader pairs pictures with the wrong text in any other order."""
    if not parsed.ours:
        return
    last = -1
    for number, image in enumerate(parsed.document.image_info):
        index = image.matched_text_index
        if not isinstance(index, int):
            return
        if index < last:
            path = f"$.image_info[{number}].matched_text_index"
            yield path, f"at least {last}, the index of the image before", f"{index}"
            return
        last = index


def no_tags_in_text(parsed: Parsed) -> Iterator[Problem]:
    """TXT001, for documents of others: in ours such words are text, and our loader knows that."""
    if parsed.ours:
        return
    for number, text in enumerate(parsed.document.text_list):
        tag = next((tag for tag in _MEDIA_TAGS if tag in text), None)
        if tag:
            yield f"$.text_list[{number}]", "text without media tags", f"{tag!r} in it"


def has_matrix(parsed: Parsed) -> Iterator[Problem]:
    """DOC005."""
    if not isinstance(parsed.document.similarity_matrix, list):
        yield "$.similarity_matrix", "a matrix", "nothing"


def images_have_bytes(parsed: Parsed) -> Iterator[Problem]:
    """DOC006."""
    for number, payload in enumerate(parsed.payloads):
        if payload is None:
            yield f"$.image_info[{number}].image_base64", "the encoded image", "nothing"


def row_for_each_image(parsed: Parsed) -> Iterator[Problem]:
    """SIM001."""
    matrix = parsed.document.similarity_matrix
    images = len(parsed.document.image_info)
    if isinstance(matrix, list) and len(matrix) != images:
        yield "$.similarity_matrix", f"{images} rows, one for each image", f"{len(matrix)}"


def value_for_each_sentence(parsed: Parsed) -> Iterator[Problem]:
    """SIM002."""
    matrix = parsed.document.similarity_matrix
    sentences = len(parsed.document.text_list)
    for number, row in enumerate(matrix if isinstance(matrix, list) else ()):
        if len(row) != sentences:
            path = f"$.similarity_matrix[{number}]"
            yield path, f"{sentences} values, one for each sentence", f"{len(row)}"


def finite(parsed: Parsed, matrix: Matrix) -> Iterator[Problem]:
    """SIM003."""
    yield from _outside(matrix, np.isfinite(matrix), "a finite number")


def cosine(parsed: Parsed, matrix: Matrix) -> Iterator[Problem]:
    """SIM004."""
    yield from _outside(matrix, np.abs(matrix) <= _LARGEST_COSINE, "a cosine, -1 to 1")


def index_in_range(parsed: Parsed) -> Iterator[Problem]:
    """ALN001."""
    sentences = len(parsed.document.text_list)
    for number, image in enumerate(parsed.document.image_info):
        index = image.matched_text_index
        if isinstance(index, int) and not 0 <= index < sentences:
            path = f"$.image_info[{number}].matched_text_index"
            yield path, f"0 to {sentences - 1}", f"{index}"


def matched_value(parsed: Parsed, matrix: Matrix) -> Iterator[Problem]:
    """ALN002, for documents of ours."""
    if not parsed.ours:
        return
    for number, image in enumerate(parsed.document.image_info):
        index, value = image.matched_text_index, image.matched_sim
        if isinstance(index, int) and isinstance(value, int | float):
            there = float(matrix[number, index])
            if not abs(there - value) <= _SIMILARITY_TOLERANCE:
                path = f"$.image_info[{number}].matched_sim"
                yield path, f"{there}, similarity_matrix[{number}][{index}]", f"{value}"


def optimal(parsed: Parsed, matrix: Matrix) -> Iterator[Problem]:
    """ALN003, for documents of ours whose alignment is `assigned`."""
    if parsed.document.alignment != "assigned" or not parsed.ours:
        return
    indices = [image.matched_text_index for image in parsed.document.image_info]
    matched = [index for index in indices if isinstance(index, int)]
    if len(matched) == len(indices):
        problem = not_optimal(matrix, matched)
        if problem:
            yield "$.image_info[*].matched_text_index", *problem


def index_fits_matrix(parsed: Parsed, matrix: Matrix) -> Iterator[Problem]:
    """ALN004, for documents of others: an index that was carried over from another record."""
    if parsed.ours:
        return
    indices = [image.matched_text_index for image in parsed.document.image_info]
    matched = [index for index in indices if isinstance(index, int)]
    if len(matched) < len(indices) or not np.isfinite(matrix).all():
        return
    places = np.arange(len(matched))
    at_best = matrix[places, matched] >= matrix.max(axis=1) - TOTAL_TOLERANCE
    if at_best.all() or not_optimal(matrix, matched) is None:
        return
    number = int(np.flatnonzero(~at_best)[0])
    path = f"$.image_info[{number}].matched_text_index"
    yield path, f"{int(matrix[number].argmax())}, or an optimal assignment", f"{matched[number]}"


def not_optimal(similarity: Matrix, matched: list[int]) -> tuple[str, str] | None:
    """What is wrong with a one-to-one assignment, by its total: (expected, got), or None.

    With more images than sentences the document does not say which image of a sentence is the
    assigned one and which are left over. A left-over stands at its argmax, so of the images at
    one sentence at most one may not be at its argmax: that one is assigned; where all are, the
    assigned one is the most similar, for no choice gives a greater total.

    Args:
        similarity: (n_images, n_sentences), finite.
        matched: the sentence of each image, in range.
    """
    images, sentences = similarity.shape
    values = similarity[np.arange(images), matched]
    at_best = values >= similarity.max(axis=1) - TOTAL_TOLERANCE
    if images <= sentences:
        if len(set(matched)) != images:
            return f"{images} different sentences", f"{len(set(matched))}"
        if at_best.all():
            return None
        total = float(values.sum())
    else:
        chosen: dict[int, float] = {}
        forced = [index for index, best in zip(matched, at_best, strict=True) if not best]
        if len(set(forced)) != len(forced):
            return "left-over images at their most similar sentence", "one that is not"
        for index, value, best in zip(matched, values.tolist(), at_best, strict=True):
            if not best or index not in forced:
                chosen[index] = value if not best else max(value, chosen.get(index, value))
        if len(chosen) != sentences:
            return f"an image at each of {sentences} sentences", f"at {len(chosen)}"
        total = sum(chosen.values())
    best_total = _best_total(similarity)
    if total < best_total - TOTAL_TOLERANCE:
        return f"a total similarity of {best_total:.6f}", f"{total:.6f}"
    return None


def _best_total(similarity: Matrix) -> float:
    """The total of the one-to-one optimum, over as many pairs as there can be."""
    if similarity.shape[0] > similarity.shape[1]:
        similarity = similarity.T
    return assigned_total(similarity, assign(similarity))


def _outside(matrix: Matrix, inside: NDArray[np.bool_], expected: str) -> Iterator[Problem]:
    """The first value of the matrix for which something does not hold."""
    if inside.all():
        return
    row, column = (int(index) for index in np.argwhere(~inside)[0])
    others = int((~inside).sum()) - 1
    more = f" ({others} more in this document)" if others else ""
    path = f"$.similarity_matrix[{row}][{column}]"
    yield path, expected, f"{float(matrix[row, column])}{more}"


def similarity_array(parsed: Parsed) -> Matrix | None:
    """The matrix of a document of sound shape; None where there is none, or no image."""
    matrix = parsed.document.similarity_matrix
    return np.array(matrix, dtype=np.float64) if isinstance(matrix, list) and matrix else None
