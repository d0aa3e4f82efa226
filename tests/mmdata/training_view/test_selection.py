"""Which images a run uses: OpenFlamingo's rules, its defects left out, a reason for everything."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.errors import UserError
from mmdata.training_view.selection import (
    Candidates,
    DocumentReason,
    ImageReason,
    SelectionPolicy,
    coin,
    judge_cut,
    select,
)

BIG = 20_000
ANY = SelectionPolicy(min_similarity=-1.0, min_image_bytes=0)


def assigned(matrix: list[list[float]], sizes: list[int | None] | None = None) -> Candidates:
    return Candidates(
        image_bytes=sizes or [BIG] * len(matrix), matrix=np.array(matrix, dtype=np.float64)
    )


def test_pictures_come_in_the_order_of_their_sentences() -> None:
    """MMC4's own example: image 0 belongs to sentence 2, image 1 to sentence 1.

    OpenFlamingo gives the first tag, that of sentence 1, image 0.
    """
    chosen = select(assigned([[0.1, 0.2, 0.4], [0.1, 0.4, 0.2]]), ANY)
    assert chosen.kept == [(1, 1), (0, 2)]


class TestThreshold:
    @pytest.mark.parametrize(("asked", "meant"), [(30.0, "0.30"), (24, "0.24"), (100, "1.00")])
    def test_percent_are_refused(self, asked: float, meant: str) -> None:
        with pytest.raises(UserError, match=f"similarities are 0 to 1: did you mean {meant}\\?"):
            SelectionPolicy(min_similarity=asked)

    def test_drops_the_image_and_says_so(self) -> None:
        chosen = select(assigned([[0.3, 0.1], [0.1, 0.23]]), SelectionPolicy())
        assert chosen.kept == [(0, 0)]
        assert chosen.image_drops == {1: ImageReason.BELOW_SIMILARITY}

    def test_equal_is_enough(self) -> None:
        assert select(assigned([[0.24]]), SelectionPolicy()).kept == [(0, 0)]

    def test_nothing_left(self) -> None:
        chosen = select(assigned([[0.2]]), SelectionPolicy())
        assert chosen.document_drop is DocumentReason.BELOW_SIMILARITY

    @pytest.mark.parametrize("source", ["mmc4", "laion", "clip:ViT-L-14/openai"])
    def test_applies_to_given_alignments_that_were_measured(self, source: str) -> None:
        document = given_document([0, 1], [0.1, 0.3], source)
        chosen = select(document, SelectionPolicy())
        assert chosen.kept == [(1, 1)]

    @pytest.mark.parametrize("source", ["placeholder", ""])
    def test_means_nothing_for_those_that_were_not(self, source: str) -> None:
        document = given_document([0, 1], [0.0, 0.0], source)
        assert select(document, SelectionPolicy()).kept == [(0, 0), (1, 1)]


class TestBytes:
    def test_boundary_is_openflamingos(self) -> None:
        chosen = select(assigned([[0.3, 0.1], [0.1, 0.3]], [10_999, 11_000]), SelectionPolicy())
        assert chosen.kept == [(1, 1)]
        assert chosen.image_drops == {0: ImageReason.TOO_SMALL}

    def test_assignment_is_over_what_is_left(self) -> None:
        matrix = [[0.9, 0.0], [0.8, 0.3]]
        assert select(assigned(matrix), ANY).kept == [(0, 0), (1, 1)]
        policy = SelectionPolicy()
        assert select(assigned(matrix, [5, BIG]), policy).kept == [(1, 0)]

    @pytest.mark.parametrize(
        ("size", "reason"),
        [(5, DocumentReason.IMAGES_TOO_SMALL), (None, DocumentReason.IMAGES_MISSING)],
    )
    def test_nothing_left(self, size: int | None, reason: DocumentReason) -> None:
        chosen = select(assigned([[0.3], [0.3]], [size, size]), SelectionPolicy())
        assert chosen.document_drop is reason


class TestSurplus:
    MATRIX = ((0.5, 0.1), (0.4, 0.2), (0.1, 0.6))

    def test_is_dropped(self) -> None:
        chosen = select(assigned([list(row) for row in self.MATRIX]), ANY)
        assert chosen.kept == [(0, 0), (2, 1)]
        assert chosen.image_drops == {1: ImageReason.SURPLUS}

    def test_or_stays_at_its_best_sentence(self) -> None:
        policy = SelectionPolicy(min_similarity=0, min_image_bytes=0, surplus="argmax")
        chosen = select(assigned([list(row) for row in self.MATRIX]), policy)
        assert chosen.kept == [(0, 0), (1, 0), (2, 1)]


class TestCap:
    def test_takes_the_first_rows_and_orders_afterwards(self) -> None:
        policy = SelectionPolicy(min_similarity=0, min_image_bytes=0, max_images=2)
        chosen = select(assigned([[0, 0, 9], [0, 9, 0], [9, 0, 0]]), policy)
        assert chosen.kept == [(1, 1), (0, 2)]
        assert chosen.image_drops == {2: ImageReason.OVER_CAP}

    def test_counts_only_what_passed(self) -> None:
        policy = SelectionPolicy(min_image_bytes=0, max_images=1)
        chosen = select(assigned([[0.1, 0.0], [0.0, 0.3]]), policy)
        assert chosen.kept == [(1, 1)]

    def test_limits_that_contradict_are_refused(self) -> None:
        with pytest.raises(UserError, match="at least 3 and at most 2"):
            SelectionPolicy(min_images=3, max_images=2)


class TestCoin:
    def test_is_for_single_images_only(self) -> None:
        policy = SelectionPolicy()
        one, two = assigned([[0.3]]), assigned([[0.3, 0], [0, 0.3]])
        assert select(one, policy, coin=0.49).document_drop is None
        assert select(one, policy, coin=0.5).document_drop is DocumentReason.SINGLE_IMAGE
        assert select(one, policy, coin=None).document_drop is None
        assert select(two, policy, coin=0.99).document_drop is None

    def test_is_fair_and_the_same_every_time(self) -> None:
        throws = [coin(1, "mmc4", 0, f"{key:012d}") for key in range(4000)]
        assert throws == [coin(1, "mmc4", 0, f"{key:012d}") for key in range(4000)]
        assert abs(np.mean(throws) - 0.5) < 0.02
        assert all(0 <= throw < 1 for throw in throws)

    def test_differs_by_seed_stream_epoch_and_key(self) -> None:
        throws = {coin(1, "a", 0, "k"), coin(2, "a", 0, "k"), coin(1, "b", 0, "k")}
        throws |= {coin(1, "a", 1, "k"), coin(1, "a", 0, "l")}
        assert len(throws) == 5

    def test_is_what_it_was(self) -> None:
        """A checkpoint of last year goes on with the same documents."""
        assert coin(42, "mmc4", 3, "000000000017") == pytest.approx(COIN, abs=0)


COIN = 0.5974372373881593


class TestCutText:
    def test_too_few_are_left(self) -> None:
        assert judge_cut(0, ANY, image_is_last=False) is DocumentReason.CUT_OFF

    def test_one_is_left_by_the_cut(self) -> None:
        assert judge_cut(1, ANY, image_is_last=False, coin=0.7) is DocumentReason.SINGLE_IMAGE
        assert judge_cut(1, ANY, image_is_last=False, coin=0.2) is None

    def test_a_lone_tag_without_text(self) -> None:
        assert judge_cut(1, ANY, image_is_last=True) is DocumentReason.IMAGE_TOKEN_LAST
        assert judge_cut(2, ANY, image_is_last=True) is None


def given_document(matched: list[int], similarity: list[float], source: str) -> Candidates:
    return Candidates(
        image_bytes=[BIG] * len(matched),
        alignment="given",
        similarity_source=source,
        matrix=np.zeros((len(matched), 3)),
        matched=matched,
        similarity=similarity,
        num_sentences=3,
    )


def test_given_alignments_stay_as_they_are() -> None:
    """The matrix would put image 0 at sentence 0; the source says that both belong to 2."""
    document = Candidates(
        image_bytes=[BIG, BIG],
        alignment="given",
        matrix=np.array([[9.0, 0, 0], [0, 9.0, 0]]),
        matched=[2, 2],
        num_sentences=3,
    )
    assert select(document, SelectionPolicy()).kept == [(0, 2), (1, 2)]


@pytest.mark.parametrize(
    "document",
    [
        assigned([[0.3], [0.3]], [BIG]),
        assigned([[float("nan")]]),
        Candidates(image_bytes=[BIG], matrix=np.zeros((1, 0))),
        Candidates(image_bytes=[BIG], matrix=np.zeros((1, 3)), num_sentences=2),
        Candidates(image_bytes=[BIG]),
        Candidates(image_bytes=[BIG], matched=[0]),
        Candidates(image_bytes=[BIG], alignment="given"),
        given_document([3], [0.3], "mmc4"),
        given_document([-1], [0.3], "mmc4"),
    ],
)
def test_similarities_that_do_not_fit(document: Candidates) -> None:
    assert select(document, ANY).document_drop is DocumentReason.BAD_ALIGNMENT


def test_no_images() -> None:
    assert select(Candidates(image_bytes=[]), ANY).document_drop is DocumentReason.NO_IMAGES


def test_an_image_that_cannot_be_decoded_makes_room() -> None:
    document = assigned([[0.9, 0.1], [0.8, 0.1], [0.1, 0.5]])
    broken = {0: ImageReason.UNDECODABLE}
    chosen = select(document, ANY, unusable=broken)
    assert chosen.kept == [(1, 0), (2, 1)]
    assert chosen.image_drops == broken


@given(
    st.integers(1, 6).flatmap(
        lambda columns: st.lists(
            st.lists(st.integers(0, 50), min_size=columns, max_size=columns), min_size=1, max_size=6
        )
    ),
    st.sampled_from(["drop", "argmax"]),
    st.data(),
)
def test_every_image_is_kept_or_has_a_reason(matrix, surplus, data) -> None:  # type: ignore[no-untyped-def]
    sizes = [data.draw(st.sampled_from([None, 5, BIG])) for _ in matrix]
    policy = SelectionPolicy(min_similarity=0.2, surplus=surplus, max_images=3)
    scaled = np.array(matrix, dtype=np.float64).reshape(len(matrix), -1) / 100
    chosen = select(Candidates(image_bytes=sizes, matrix=scaled), policy, coin=0.0)
    kept = [image for image, _ in chosen.kept]
    assert sorted([*kept, *chosen.image_drops]) == list(range(len(matrix)))
    assert (chosen.document_drop is None) == bool(kept)
    sentences = [sentence for _, sentence in chosen.kept]
    assert sentences == sorted(sentences)
    if surplus == "drop":
        assert len(set(sentences)) == len(sentences)


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 6))
def test_the_samples_table_tells_the_same_without_a_matrix(
    seed: int, images: int, sentences: int
) -> None:
    """Where no image is too small: the table has the converter's assignment."""
    from mmdata.alignment import assign

    matrix = np.random.default_rng(seed).random((images, sentences))
    matched = assign(matrix)
    table = Candidates(
        image_bytes=[BIG] * images,
        matched=matched,
        similarity=[float(matrix[row, column]) for row, column in enumerate(matched)],
    )
    document = Candidates(image_bytes=[BIG] * images, matrix=matrix)
    assert select(table, SelectionPolicy()) == select(document, SelectionPolicy())
