"""A document with references becomes a sample: which images stay, in which order, and why not."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mmdata.images import ImagePolicy, ImageRejected
from mmdata.samples.assemble import AssemblyPolicy, MissingImageError, Outcome, assemble
from mmdata.sources.base import SourceDocument
from mmdata.sources.mmc4 import parse_record
from mmdata.sources.names import StoredImage
from schemas.reasons import DocumentDrop, ImageDrop, ImageNote
from tests.corpus import document, image_bytes, picture

FILES = {f"{k}.jpg": picture(k) for k in range(4)} | {
    "copy.jpg": picture(0),
    "really.png": picture(5, kind="JPEG"),
    "zero.jpg": b"",
    "cut.jpg": picture(6, size=(200, 200))[:-4000],
}


def read(name: str) -> StoredImage:
    if name not in FILES:
        raise ImageRejected(ImageDrop.MISSING, f"{name}: no such file")
    return StoredImage(FILES[name], name)


def policy(**more: Any) -> AssemblyPolicy:
    return AssemblyPolicy(images=ImagePolicy(), **more)


def made(images: list[str], *, sentences: int = 4, **more: Any) -> tuple[Outcome, dict[str, Any]]:
    """The outcome of a document, and its sample."""
    source = parse_record(json.dumps(document(1, images=images, sentences=sentences)).encode())
    outcome = assemble(source, read, policy(**more))
    return outcome, json.loads(b"".join(outcome.parts) or b"{}")


def test_a_sample_describes_what_is_in_it() -> None:
    outcome, sample = made(["0.jpg", "1.jpg"])
    assert list(sample)[:3] == ["format_version", "text_list", "image_info"]
    for info in sample["image_info"]:
        data = image_bytes(info)
        assert data == FILES[info["image_name"]]
        assert info["sha256"] == hashlib.sha256(data).hexdigest()
        assert (info["width"], info["height"], info["format"]) == (48, 36, "jpeg")
    text = b"".join(outcome.parts)
    assert outcome.row["size"] == len(text)
    assert outcome.row["sha256"] == hashlib.sha256(text).hexdigest()


def test_the_same_document_gives_the_same_bytes() -> None:
    assert made(["0.jpg", "1.jpg"])[0] == made(["0.jpg", "1.jpg"])[0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone.jpg", ImageDrop.MISSING),
        ("zero.jpg", ImageDrop.TRUNCATED),
        ("cut.jpg", ImageDrop.TRUNCATED),
    ],
)
def test_an_image_that_does_not_pass_is_dropped_by_reason(name: str, reason: ImageDrop) -> None:
    outcome, sample = made([name, "1.jpg"])
    assert outcome.dropped_images[0][0] == reason
    assert outcome.dropped_images[0][1].startswith(f"{name}: ")
    assert [info["image_name"] for info in sample["image_info"]] == ["1.jpg"]
    assert len(sample["similarity_matrix"]) == 1


def test_what_is_left_is_assigned_anew() -> None:
    record = document(0, images=["gone.jpg", "1.jpg"], sentences=2)
    record["similarity_matrix"] = [[0.4, 0.1], [0.39, 0.2]]
    source = parse_record(json.dumps(record).encode())
    sample = json.loads(b"".join(assemble(source, read, policy()).parts))
    assert sample["image_info"][0]["matched_text_index"] == 0  # the missing one held it


def test_on_missing_drop_document_says_which_image() -> None:
    outcome, _ = made(["0.jpg", "gone.jpg"], on_missing="drop-document")
    assert outcome.drop == (DocumentDrop.IMAGE_MISSING, "gone.jpg: no such file")
    assert {k: str(v[0]) for k, v in outcome.dropped_images.items()} == {
        0: "document-dropped",
        1: "missing",
    }
    outcome, _ = made(["0.jpg", "zero.jpg"], on_missing="drop-document")
    assert outcome.drop is not None
    assert outcome.drop[0] == DocumentDrop.IMAGE_UNUSABLE


def test_on_missing_error_stops() -> None:
    with pytest.raises(MissingImageError, match=r"image 1 \(gone.jpg\): missing"):
        made(["0.jpg", "gone.jpg"], on_missing="error")


def test_a_document_without_images_goes_unless_text_is_kept() -> None:
    listed, _ = made([])
    left, _ = made(["gone.jpg"])
    assert listed.drop is not None
    assert left.drop is not None
    assert listed.drop[0] == DocumentDrop.NO_IMAGES_LISTED
    assert left.drop == (DocumentDrop.NO_IMAGES_LEFT, "dropped 1 image, all of them: missing")
    for images in ([], ["gone.jpg"]):
        outcome, sample = made(images, keep_text_only=True)
        assert outcome.drop is None
        assert sample["image_info"] == sample["similarity_matrix"] == []
        assert outcome.row["similarity"] == outcome.row["margin"] == []


def test_equal_images_stay_unless_asked() -> None:
    _, sample = made(["0.jpg", "copy.jpg", "1.jpg"])
    assert len(sample["image_info"]) == 3
    outcome, sample = made(["0.jpg", "copy.jpg", "1.jpg"], drop_duplicate_images=True)
    assert outcome.dropped_images[1][0] == ImageDrop.DUPLICATE_IN_DOCUMENT
    assert sorted(info["image_name"] for info in sample["image_info"]) == ["0.jpg", "1.jpg"]


def test_a_document_is_dropped_when_its_images_are_too_many_bytes() -> None:
    total = len(FILES["0.jpg"]) + len(FILES["1.jpg"])
    assert made(["0.jpg", "1.jpg"], max_document_bytes=total)[0].drop is None
    outcome, _ = made(["0.jpg", "1.jpg"], max_document_bytes=total - 1)
    assert outcome.drop is not None
    assert outcome.drop[0] == DocumentDrop.IMAGES_TOO_LARGE
    assert len(outcome.dropped_images) == 2


def test_images_below_the_threshold_are_dropped_with_it() -> None:
    outcome, sample = made(["0.jpg", "1.jpg", "2.jpg"], min_similarity=1.0)
    assert sample == {}
    assert {reason for reason, _ in outcome.dropped_images.values()} == {ImageDrop.LOW_SIMILARITY}


def test_a_name_that_lies_about_its_format_is_noted() -> None:
    outcome, sample = made(["really.png"])
    assert sample["image_info"][0]["format"] == "jpeg"
    assert outcome.notes == [(0, "wrong-extension", "really.png")]


def test_given_matches_are_kept_and_ordered_but_never_assigned() -> None:
    source = SourceDocument(
        text_list=["a", "b"],
        images=[*parse_record(json.dumps(document(0, images=["0.jpg", "1.jpg"])).encode()).images],
        similarity=np.array([[0.1, 0.9], [0.9, 0.1]]),
        similarity_source="placeholder",
        alignment="given",
        extras={},
        matched=[1, 1],
    )
    outcome = assemble(source, read, policy())
    sample = json.loads(b"".join(outcome.parts))
    assert [i["matched_text_index"] for i in sample["image_info"]] == [1, 1]
    assert [i["image_name"] for i in sample["image_info"]] == ["0.jpg", "1.jpg"]
    assert sample["alignment"] == "given"


def test_the_margin_is_to_the_best_other_sentence() -> None:
    record = document(0, images=["0.jpg"], sentences=3)
    record["similarity_matrix"] = [[0.1, 0.4, 0.25]]
    source = parse_record(json.dumps(record).encode())
    assert assemble(source, read, policy()).row["margin"] == pytest.approx([0.15])
    assert made(["0.jpg"], sentences=1)[0].row["margin"] == [None]


def test_a_failure_of_the_machine_is_no_drop() -> None:
    def broken(name: str) -> StoredImage:
        raise OSError(24, "Too many open files")

    reader: Callable[[str], StoredImage] = broken
    source = parse_record(json.dumps(document(0, images=["0.jpg"])).encode())
    with pytest.raises(OSError, match="Too many open files"):
        assemble(source, reader, policy())


def test_how_an_image_was_found_is_a_note_on_it() -> None:
    source = parse_record(json.dumps(document(0, images=["x/0.jpg", "0.jpg"])).encode())

    def elsewhere(name: str) -> StoredImage:
        note = ImageNote.FOUND_BY_SUFFIX if name == "x/0.jpg" else None
        return StoredImage(FILES["0.jpg"], "y/x/0.jpg" if note else name, note)

    outcome = assemble(source, elsewhere, policy())
    assert outcome.notes == [(0, "found-by-suffix", "x/0.jpg is y/x/0.jpg")]


def test_a_payload_that_was_taken_for_a_name_is_not_repeated() -> None:
    payload = "A" * 60_000
    source = parse_record(json.dumps(document(0, images=[payload, "0.jpg"])).encode())

    def nowhere(name: str) -> StoredImage:
        if name == payload:
            raise ImageRejected(ImageDrop.MISSING, "no such file")
        return StoredImage(FILES["0.jpg"], name)

    outcome = assemble(source, nowhere, policy())
    (reason, detail) = outcome.dropped_images[0]
    assert reason == ImageDrop.MISSING
    assert detail == f"{'A' * 50}… (60000 characters): no such file"
    with pytest.raises(MissingImageError) as caught:
        assemble(source, nowhere, policy(on_missing="error"))
    assert len(str(caught.value)) < 200


def test_a_record_of_a_video_is_told_to_be_one() -> None:
    record = document(0, images=[], sentences=2) | {"similarity_matrix": [], "video": "v.mp4"}
    outcome = assemble(parse_record(json.dumps(record).encode()), read, policy())
    assert outcome.drop is not None
    assert outcome.drop[0] == DocumentDrop.NO_IMAGES_LISTED
    assert outcome.drop[1].endswith("got none, but video")
