"""What is shown of a document, and what is said where it cannot be shown."""

import json
from pathlib import Path

import pytest

from mmdata.report.gallery import MAX_CHARS, MAX_IMAGES, MAX_SENTENCES, ShownDocument
from mmdata.report.gallery import show_documents as show
from mmdata.report.picks import Pick, Picks
from mmdata.report.training import Alignment
from mmdata.training_view.selection import SelectionPolicy
from tests.shard_factory import Dataset, flip, make_document, make_image, make_shard_of, make_tar
from tests.shard_factory import sha256 as sha256_of

POLICY = SelectionPolicy(min_similarity=-1.0, min_image_bytes=0, max_images=2)


def shown(dataset: Dataset, policy: SelectionPolicy = POLICY) -> list[ShownDocument]:
    """All documents of the first shard."""
    path = str(dataset.path())
    picks = [Pick(float(n), path, row) for n, row in enumerate(dataset.read_samples())]
    found = Picks(num_random=len(picks), random=picks)
    return show(found, len(picks), {path: Alignment()}, policy)


def test_images_stand_beside_their_sentences(tmp_path: Path) -> None:
    document = make_document(3, images=3, sentences=4)
    (found,) = shown(make_shard_of(tmp_path, document))
    assert found.problem == ""
    assert (found.num_images, found.num_sentences) == (3, 4)
    assert found.sentences == document["text_list"]
    assert found.matrix == document["similarity_matrix"]
    assert (found.alignment, found.similarity_source) == ("assigned", "mmc4")
    for image, given in zip(found.images, document["image_info"], strict=True):
        assert image.text == document["text_list"][given["matched_text_index"]]
        assert (image.name, image.url) == (given["image_name"], given["raw_url"])
        assert image.similarity == given["matched_sim"]
        assert image.thumbnail is not None
        assert (image.thumbnail.width, image.thumbnail.height) == (24, 16)


def test_what_training_leaves_out_has_its_reason(tmp_path: Path) -> None:
    (found,) = shown(make_shard_of(tmp_path, make_document(3, images=3, sentences=4)))
    assert [image.unused for image in found.images] == ["", "", "over-max-images"]
    assert found.reasons == ["over-max-images"]


def test_everything_is_bounded(tmp_path: Path) -> None:
    document = make_document(4, images=MAX_IMAGES + 3, sentences=MAX_SENTENCES + 20)
    document["text_list"][0] = "x" * 10_000
    document["url"] = "https://example.org/" + "y" * 10_000
    (found,) = shown(make_shard_of(tmp_path, document))
    assert len(found.images) == MAX_IMAGES
    assert (len(found.matrix), len(found.matrix[0])) == (MAX_IMAGES, MAX_SENTENCES)
    assert len(found.sentences) == MAX_SENTENCES
    assert (len(found.sentences[0]), len(found.url)) == (MAX_CHARS, MAX_CHARS)
    assert (found.num_images, found.num_sentences) == (MAX_IMAGES + 3, MAX_SENTENCES + 20)


def test_a_flipped_bit_is_shown_as_damage_and_the_next_document_as_ever(tmp_path: Path) -> None:
    dataset = make_shard_of(tmp_path, make_document(1), make_document(2))
    flip(dataset.path(), dataset.read_samples()[0]["offset"] + 40)
    damaged, whole = shown(dataset)
    assert damaged.problem.startswith("SIDE009: expected the bytes of the samples table")
    assert damaged.images[0].thumbnail is None
    assert whole.problem == ""


def test_a_shard_that_is_gone_is_said(tmp_path: Path) -> None:
    dataset = make_shard_of(tmp_path, make_document(1))
    picks = Picks(num_random=1, random=[Pick(0.0, str(dataset.path()), dataset.read_samples()[0])])
    dataset.path().unlink()
    (found,) = show(picks, 1, {str(dataset.path()): Alignment()}, POLICY)
    assert "No such file" in found.problem


@pytest.mark.parametrize(
    ("base64", "problem"),
    [("b'aGk='", "B64001"), ("aGVsbG8=", "not-an-image"), (None, "no bytes in the document")],
)
def test_a_picture_that_cannot_be_shown_says_why(
    tmp_path: Path, base64: str | None, problem: str
) -> None:
    document = make_document(1)
    for ours in ("format_version", "similarity_source", "alignment"):
        del document[ours]
    dataset = make_shard_of(tmp_path, document)
    (row,) = dataset.read_samples()
    document["image_info"][0]["image_base64"] = base64
    member = json.dumps(document).encode()
    dataset.path().write_bytes(make_tar([(f"{row['key']}.json", member)]))
    dataset.write_samples(0, [row | {"size": len(member), "sha256": sha256_of(member)}])
    (found,) = shown(dataset)
    assert problem in found.images[0].problem
    assert found.images[0].thumbnail is None
    assert found.images[1].thumbnail is not None


def test_what_the_conversion_dropped_of_it_is_there(tmp_path: Path) -> None:
    dataset = make_shard_of(tmp_path, make_document(1), make_document(2))
    lines = [
        {"action": action, "reason": reason, "file": "docs.jsonl", "record": 1, "key": key}
        for action, reason, key in (
            ("dropped-image", "missing", "000000000001"),
            ("kept", "first-frame", "000000000001"),
            ("dropped-document", "bad-json", "000000000099"),
        )
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    dataset.path(0, ".rejects.jsonl").write_text(text, encoding="utf-8")
    first, second = shown(dataset, SelectionPolicy(min_similarity=-1.0, min_image_bytes=0))
    assert (first.rejects, first.reasons) == ([], [])
    assert [reject.reason for reject in second.rejects] == ["missing", "first-frame"]
    assert second.reasons == ["missing"]


def test_a_pair_is_a_document_of_one_sentence(tmp_path: Path) -> None:
    dataset = make_shard_of(tmp_path, make_document(1, images=1, sentences=1))
    (row,) = dataset.read_samples()
    picture = make_image(7)
    members = [("jpg", picture), ("txt", "A caption, é.".encode()), ("json", b'{"url": "u"}')]
    named = [(f"{row['key']}.{extension}", data) for extension, data in members]
    dataset.path().write_bytes(make_tar(named, fill=False))
    place = {"offset": 512, "size": len(picture), "sha256": sha256_of(picture)}
    dataset.write_samples(0, [row | place])
    (found,) = shown(dataset)
    assert found.problem == ""
    assert found.sentences == ["A caption, é."]
    assert found.images[0].text == "A caption, é."
    assert found.images[0].thumbnail is not None


def test_a_pair_without_its_caption_is_said(tmp_path: Path) -> None:
    dataset = make_shard_of(tmp_path, make_document(1, images=1, sentences=1))
    (row,) = dataset.read_samples()
    picture = make_image(7)
    dataset.path().write_bytes(make_tar([(f"{row['key']}.jpg", picture)]))
    place = {"offset": 512, "size": len(picture), "sha256": sha256_of(picture)}
    dataset.write_samples(0, [row | place])
    (found,) = shown(dataset)
    assert found.problem == "PAIR003: expected a caption behind the picture, got none"


def test_one_document_in_two_sets_is_shown_once(tmp_path: Path) -> None:
    dataset = make_shard_of(tmp_path, make_document(1))
    one = Pick(0.0, str(dataset.path()), dataset.read_samples()[0])
    picks = Picks(num_random=1, num_extreme=1, random=[one], worst=[one], best=[one])
    (found,) = show(picks, 1, {one.shard: Alignment()}, POLICY)
    assert found.sets == ("random", "worst", "best")
