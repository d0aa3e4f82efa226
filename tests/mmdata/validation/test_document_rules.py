"""The alignment rule against brute force, and the words of the others."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.validation.document_rules import not_optimal
from mmdata.validation.documents import parse_document
from mmdata.validation.rules import check_document
from tests.shard_factory import encode, foreign, make_document

# Few values, so that ties are everywhere.
VALUES = st.sampled_from([0.1, 0.2, 0.2, 0.3, 0.9])


@st.composite
def alignments(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    images, sentences = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rows = st.lists(VALUES, min_size=sentences, max_size=sentences)
    matrix = np.array(draw(st.lists(rows, min_size=images, max_size=images)))
    index = st.integers(0, sentences - 1)
    return matrix, draw(st.lists(index, min_size=images, max_size=images))


def mmc4_could_have_made(matrix: np.ndarray, matched: list[int]) -> bool:
    """By trying every one-to-one optimum, and every argmax for the images left over."""
    images, sentences = matrix.shape
    pairs = min(images, sentences)
    choices = [
        dict(zip(chosen, columns, strict=True))
        for chosen in permutations(range(images), pairs)
        for columns in permutations(range(sentences), pairs)
    ]
    totals = [sum(matrix[i, j] for i, j in choice.items()) for choice in choices]
    best = max(totals)
    at_best = [matrix[i, matched[i]] >= matrix[i].max() - 1e-9 for i in range(images)]
    return any(
        total > best - 1e-9
        and all(matched[i] == choice[i] if i in choice else at_best[i] for i in range(images))
        for choice, total in zip(choices, totals, strict=True)
    )


@settings(max_examples=400, deadline=None)
@given(alignments())
def test_an_assignment_passes_if_and_only_if_mmc4_could_have_made_it(
    case: tuple[np.ndarray, list[int]],
) -> None:
    matrix, matched = case
    assert (not_optimal(matrix, matched) is None) == mmc4_could_have_made(matrix, matched)


@pytest.mark.parametrize(
    ("matrix", "matched", "problem"),
    [
        ([[0.9, 0.1], [0.8, 0.2]], [0, 0], ("2 different sentences", "1")),
        ([[0.9, 0.1], [0.8, 0.7]], [1, 0], ("a total similarity of 1.600000", "0.900000")),
        ([[0.3], [0.2]], [0, 0], None),
        (
            [[0.3, 0.1], [0.2, 0.1], [0.2, 0.1]],
            [0, 0, 0],
            ("an image at each of 2 sentences", "at 1"),
        ),
        (
            [[0.3, 0.1], [0.2, 0.1], [0.2, 0.1]],
            [0, 1, 1],
            ("left-over images at their most similar sentence", "one that is not"),
        ),
    ],
)
def test_what_is_wrong_is_said(
    matrix: list[list[float]], matched: list[int], problem: tuple[str, str] | None
) -> None:
    assert not_optimal(np.array(matrix), matched) == problem


def problems(document: dict[str, Any]) -> list[tuple[str, tuple[str, str, str]]]:
    found = check_document(parse_document(encode(document)))
    return [(rule.code, problem) for rule, problem in found]


def test_a_sound_document_has_no_problems() -> None:
    assert problems(make_document(3)) == []
    assert problems(foreign(make_document(3))) == []


def test_the_shape_of_the_matrix() -> None:
    document = make_document(3, images=2, sentences=3)
    document["similarity_matrix"] = [[0.1, 0.2, 0.3]]
    assert problems(document) == [
        ("SIM001", ("$.similarity_matrix", "2 rows, one for each image", "1"))
    ]
    document["similarity_matrix"] = [[0.1, 0.2, 0.3], [0.1]]
    assert problems(document) == [
        ("SIM002", ("$.similarity_matrix[1]", "3 values, one for each sentence", "1"))
    ]


def test_similarities_times_100() -> None:
    document = foreign(make_document(3, images=1, sentences=2))
    document["similarity_matrix"] = [[20.0, 31.5]]
    assert problems(document) == [
        (
            "SIM004",
            ("$.similarity_matrix[0][0]", "a cosine, -1 to 1", "20.0 (1 more in this document)"),
        )
    ]


def test_others_need_no_matched_index_and_no_matrix() -> None:
    document = foreign(make_document(3, images=1))
    del document["similarity_matrix"], document["image_info"][0]["matched_text_index"]
    assert [code for code, _ in problems(document)] == ["DOC005"]
    document["text_list"] = []
    assert [code for code, _ in problems(document)] == ["DOC002", "DOC005"]


def test_a_document_without_images() -> None:
    document = make_document(3) | {"image_info": [], "similarity_matrix": []}
    assert problems(document) == []
