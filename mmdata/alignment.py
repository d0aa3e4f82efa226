"""Which sentence an image belongs to: MMC4's one-to-one assignment, and the order it implies.

MMC4 (Zhu et al. 2023, section 2.2) assigns images to sentences one-to-one so that the total
similarity is greatest; images that outnumber the sentences go to their best sentence each. The
optimum's total is unique, the assignment often is not (ties): compare totals, never indices.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Similarity = NDArray[np.float64]
"""(n_images, n_sentences), cosine similarities."""

#: Two assignments are equally good when their totals differ by no more.
TOTAL_TOLERANCE = 1e-6


def assign(similarity: Similarity) -> list[int]:
    """The sentence of each image: one-to-one with the greatest total, left-overs to their argmax.

    Args:
        similarity: (n_images, n_sentences), finite, n_sentences >= 1.

    Returns:
        n_images indices into the sentences.
    """
    matched: list[int] = similarity.argmax(axis=1).tolist()
    if len(set(matched)) == len(matched):
        return matched  # every image has its best sentence to itself: no total is greater
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        matched[row] = column
    return matched


def assigned_total(similarity: Similarity, matched: list[int]) -> float:
    """The sum of the matched similarities, what `assign` makes greatest.

    Args:
        similarity: (images, sentences).
        matched: the sentence of each image.
    """
    return float(similarity[np.arange(len(matched)), matched].sum())


@dataclass(frozen=True, slots=True)
class Aligned:
    """Images that are kept, in the order of their sentences.

    Attributes:
        rows: indices of the input's images, in output order.
        matched: the sentence of each of them.
        below: indices of the images that --min-similarity dropped.
    """

    rows: list[int]
    matched: list[int]
    below: list[int]


def align(similarity: Similarity, min_similarity: float | None = None) -> Aligned:
    """Assign, drop what is below the threshold, and assign the rest anew until nothing drops.

    Images come out in the order of the sentences that they are matched to (ties: input order), so
    that a reader which pairs the k-th image with the k-th `<image>` tag pairs them rightly.

    Args:
        similarity: (images, sentences), cosines.
        min_similarity: of an image with its sentence; None: all images stay.
    """
    rows = list(range(len(similarity)))
    below: list[int] = []
    matched = assign(similarity) if rows else []
    while min_similarity is not None and rows:
        kept = [k for k, row in enumerate(rows) if similarity[row, matched[k]] >= min_similarity]
        if len(kept) == len(rows):
            break
        below += [rows[k] for k in range(len(rows)) if k not in set(kept)]
        rows = [rows[k] for k in kept]
        matched = assign(similarity[rows]) if rows else []
    order = sorted(range(len(rows)), key=lambda k: (matched[k], rows[k]))
    return Aligned([rows[k] for k in order], [matched[k] for k in order], sorted(below))
