"""MMC4's assignment: one-to-one with the greatest total, left-overs to their best sentence."""

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmdata.alignment import TOTAL_TOLERANCE, Similarity, align, assign, assigned_total


@st.composite
def matrices(draw: st.DrawFn, most: int = 5) -> Similarity:
    """Small matrices of cosines; few distinct values, so that ties are common."""
    shape = draw(st.tuples(st.integers(1, most), st.integers(1, most)))
    tied = st.integers(-4, 4).map(lambda tenths: tenths / 10)
    plain = st.floats(-1, 1, allow_nan=False, width=32)
    values = draw(st.sampled_from([tied, plain]))
    return draw(arrays(np.float64, shape, elements=values))


def best_total(similarity: Similarity) -> float:
    """The greatest total of any one-to-one assignment of as many images as there is room for."""
    images, sentences = similarity.shape
    room = min(images, sentences)
    return max(
        sum(float(similarity[i, j]) for i, j in zip(chosen, places, strict=True))
        for chosen in combinations(range(images), room)
        for places in permutations(range(sentences), room)
    )


@given(matrices())
def test_no_assignment_has_a_greater_total(similarity: Similarity) -> None:
    matched = assign(similarity)
    images, sentences = similarity.shape
    assert len(matched) == images
    if images <= sentences:
        assert len(set(matched)) == images
        assert abs(assigned_total(similarity, matched) - best_total(similarity)) <= TOTAL_TOLERANCE


@given(matrices(4))
def test_left_over_images_go_to_their_best_sentence(similarity: Similarity) -> None:
    """One image a sentence makes the optimum; every other one is at a sentence it likes best."""
    images, sentences = similarity.shape
    if images <= sentences:
        return
    matched = assign(similarity)
    best = best_total(similarity)
    fits = []
    for chosen in combinations(range(images), sentences):
        rest = set(range(images)) - set(chosen)
        one_to_one = len({matched[i] for i in chosen}) == sentences
        total = sum(similarity[i, matched[i]] for i in chosen)
        argmax = all(similarity[i, matched[i]] == similarity[i].max() for i in rest)
        fits.append(one_to_one and abs(total - best) <= TOTAL_TOLERANCE and argmax)
    assert any(fits)


@given(matrices())
def test_images_come_in_the_order_of_their_sentences(similarity: Similarity) -> None:
    aligned = align(similarity)
    assert aligned.below == []
    assert sorted(aligned.rows) == list(range(len(similarity)))
    pairs = list(zip(aligned.matched, aligned.rows, strict=True))
    assert pairs == sorted(pairs)
    assert dict(zip(aligned.rows, aligned.matched, strict=True)) == dict(
        enumerate(assign(similarity))
    )


@given(matrices(), st.floats(-1, 1))
def test_min_similarity_drops_and_assigns_anew_until_all_stay(
    similarity: Similarity, least: float
) -> None:
    aligned = align(similarity, least)
    assert sorted(aligned.rows + aligned.below) == list(range(len(similarity)))
    kept = sorted(aligned.rows)
    if kept:
        anew = dict(zip(kept, assign(similarity[kept]), strict=True))
        assert anew == dict(zip(aligned.rows, aligned.matched, strict=True))
        assert all(similarity[row, anew[row]] >= least for row in kept)


def test_dropping_one_image_can_free_the_sentence_of_another() -> None:
    similarity = np.array([[0.30, 0.10], [0.29, 0.05], [0.28, 0.27]])
    # Images 0 and 2 hold the two sentences; 1 is left over and shares sentence 0.
    assert align(similarity).matched == [0, 0, 1]
    lower = np.array([[0.30, 0.29], [0.31, 0.10]])
    assert align(lower, 0.295).rows == [1]  # 0 is assigned 0.29, though 0.30 would have passed
    assert align(lower, 0.295).below == [0]


def test_what_is_exactly_at_the_threshold_stays() -> None:
    assert align(np.array([[0.25]]), 0.25).rows == [0]


def test_no_images_align_to_nothing() -> None:
    aligned = align(np.zeros((0, 3)), 0.2)
    assert (aligned.rows, aligned.matched, aligned.below) == ([], [], [])


@pytest.mark.parametrize("images", [1, 7, 40])
def test_one_sentence_takes_all_images_in_input_order(images: int) -> None:
    aligned = align(np.full((images, 1), 0.2))
    assert aligned.rows == list(range(images))
    assert aligned.matched == [0] * images


def test_the_same_matrix_gives_the_same_answer() -> None:
    similarity = np.full((6, 4), 0.25)
    assert {tuple(assign(similarity.copy())) for _ in range(20)} == {tuple(assign(similarity))}
