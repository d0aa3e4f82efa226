"""A row of the samples table decides as the document would, or says that it cannot."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.alignment import assign
from mmdata.forecast.table import ANY_TRAITS, TableRow, Traits, is_settled, select_row
from mmdata.training_view.selection import Candidates, SelectionPolicy, select

ASSIGNED = Traits("assigned", "mmc4")


@st.composite
def documents(draw: st.DrawFn) -> tuple[TableRow, Any]:
    """A row, and the matrix that it was made from: random values, so that nothing is tied."""
    images = draw(st.integers(1, 6))
    sentences = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    matrix = rng.uniform(0.1, 0.4, (images, sentences))
    matched = assign(matrix)
    similarity = [float(matrix[n, column]) for n, column in enumerate(matched)]
    margin = [
        float(matrix[n, c] - np.delete(matrix[n], c).max()) if sentences > 1 else None
        for n, c in enumerate(matched)
    ]
    sizes = [draw(st.sampled_from((5_000, 20_000))) for _ in range(images)]
    return TableRow(sentences, matched, similarity, margin, sizes), matrix


@given(documents(), st.sampled_from((0.0, 0.2, 0.3)), st.sampled_from(("drop", "argmax")))
@settings(max_examples=400)
def test_what_is_sure_is_what_the_document_says(
    document: tuple[TableRow, Any], threshold: float, surplus: Any
) -> None:
    row, matrix = document
    policy = SelectionPolicy(min_similarity=threshold, surplus=surplus)
    chosen, doubt = select_row(row, (ASSIGNED,), policy)
    whole = select(Candidates(image_bytes=row.image_bytes, matrix=matrix), policy)
    if doubt is None:
        assert chosen == whole


def test_without_small_images_all_is_sure() -> None:
    row = TableRow(2, [0, 0], [0.3, 0.2], [-0.1, -0.1], [20_000, 20_000])
    assert is_settled(row, SelectionPolicy())


def test_a_place_that_a_small_image_leaves_may_be_taken_by_another() -> None:
    row = TableRow(2, [0, 1], [0.3, 0.2], [0.1, -0.1], [5_000, 20_000])
    assert not is_settled(row, SelectionPolicy())
    better = TableRow(2, [0, 1], [0.3, 0.2], [0.1, 0.1], [5_000, 20_000])
    assert is_settled(better, SelectionPolicy())


def test_where_the_kind_of_alignment_matters_the_row_is_not_sure() -> None:
    below = TableRow(2, [0, 1], [0.1, 0.1], [0.1, 0.1], [20_000, 20_000])
    above = TableRow(2, [0, 1], [0.5, 0.5], [0.1, 0.1], [20_000, 20_000])
    assert select_row(below, ANY_TRAITS, SelectionPolicy())[1] == "alignment"
    assert select_row(above, ANY_TRAITS, SelectionPolicy())[1] is None
