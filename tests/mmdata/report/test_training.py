"""The forecast is the selection of the trainer, counted so that nothing is left over."""

from hypothesis import given
from hypothesis import strategies as st

from mmdata.report.tables import ImageRows
from mmdata.report.training import (
    DOCUMENT_DROPPED,
    HELD_OUT,
    Alignment,
    coin_drops,
    images_dropped,
    is_held_out,
    training_use,
    verdicts,
)
from mmdata.training_view.selection import Candidates, SelectionPolicy, select

POLICY = SelectionPolicy(min_similarity=0.24, min_image_bytes=100, max_images=3, min_images=2)

IMAGES = st.lists(
    st.tuples(st.integers(0, 4), st.floats(0, 1), st.sampled_from([50, 100, 5000])), max_size=8
)


def rows_of(documents: list[list[tuple[int, float, int]]]) -> ImageRows:
    """A table of documents of five sentences; an image is (sentence, similarity, bytes)."""
    offsets = [0]
    for images in documents:
        offsets.append(offsets[-1] + len(images))
    flat = [image for images in documents for image in images]
    return ImageRows(
        offsets=offsets,
        sentences=[5] * len(documents),
        image_bytes=[size for _, _, size in flat],
        matched=[sentence for sentence, _, _ in flat],
        similarity=[similarity for _, similarity, _ in flat],
    )


@given(st.lists(IMAGES), st.sampled_from(["assigned", "given"]))
def test_it_uses_what_the_trainer_would(
    documents: list[list[tuple[int, float, int]]], kind: str
) -> None:
    use = training_use(rows_of(documents), Alignment(kind=kind, similarity_source="mmc4"), POLICY)
    chosen = [
        select(
            Candidates(
                image_bytes=[size for _, _, size in images],
                alignment=kind,
                similarity_source="mmc4",
                matched=[sentence for sentence, _, _ in images],
                similarity=[similarity for _, similarity, _ in images],
                num_sentences=5,
            ),
            POLICY,
        )
        for images in documents
    ]
    assert use.images_used == sum(len(selection.kept) for selection in chosen)
    assert use.used == sum(selection.document_drop is None for selection in chosen)


@given(st.lists(IMAGES))
def test_every_document_and_image_is_used_or_has_a_reason(
    documents: list[list[tuple[int, float, int]]],
) -> None:
    use = training_use(rows_of(documents), Alignment(), POLICY)
    assert use.used + sum(use.dropped.values()) == len(documents)
    assert use.images_used + sum(images_dropped(use).values()) == sum(map(len, documents))


def test_an_image_that_goes_with_its_document_has_that_reason() -> None:
    rows = rows_of([[(0, 0.9, 5000), (1, 0.1, 5000)]])
    reason, drops = verdicts(rows, 0, Alignment(), POLICY)
    assert reason == "below-similarity"
    assert drops == {0: DOCUMENT_DROPPED, 1: "below-similarity"}


def test_a_document_with_one_used_image_is_counted_for_the_coin() -> None:
    policy = SelectionPolicy(min_image_bytes=0)
    use = training_use(rows_of([[(0, 0.9, 10)], [(0, 0.9, 10), (1, 0.9, 10)]]), Alignment(), policy)
    assert (use.used, use.single_image) == (2, 1)


def test_captions_are_all_used() -> None:
    use = training_use(rows_of([[(0, 0.01, 1)]]), Alignment(kind="given", captions=True), POLICY)
    assert (use.used, use.images_used, use.single_image) == (1, 1, 0)
    assert not use.dropped


def test_a_split_to_measure_on_is_not_used_in_training() -> None:
    rows = rows_of([[(0, 0.9, 5000), (1, 0.9, 5000)], [(2, 0.9, 5000), (3, 0.9, 5000)]])
    use = training_use(rows, Alignment(held_out=True), POLICY)
    assert (use.used, use.images_used) == (0, 0)
    assert use.dropped == {HELD_OUT: 2}
    assert images_dropped(use).total() == 4
    assert [is_held_out(name) for name in ("train", "val", "Test", "a", None)] == [
        *(False, True, True, False, False)
    ]


def test_the_coin_leaves_out_documents_with_one_image() -> None:
    policy = SelectionPolicy(min_similarity=0.24, min_image_bytes=100, keep_single_image=0.5)
    use = training_use(rows_of([[(0, 0.9, 5000)]] * 4), Alignment(), policy)
    assert (use.used, coin_drops(use, policy)) == (4, 2)
