"""Five faults of a converter that somebody published, each of which trains in silence elsewhere.

It wrote a matrix of n_images x n_sentences rows, left `<image>` in the text, put one picture in
place of all, carried matched_text_index over from the record before, and wrote gzip into `.tar`.
"""

import base64
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.shard_factory import encode, foreign, make_document, make_image, make_tar

Document = dict[str, Any]


def shard(folder: Path, change: Callable[[int, Document], None] = lambda *_: None) -> Path:
    """Ten documents as others write them."""
    members = []
    for number in range(10):
        document = foreign(make_document(number, images=1))
        change(number, document)
        members.append((f"{number:03d}.json", encode(document)))
    path = folder / "shard.tar"
    path.write_bytes(make_tar(members))
    return path


def codes(path: Path) -> set[str]:
    return {f.code for f in validate(Validate(shards=(str(path),), workers=0)).findings}


def test_the_shard_without_a_fault_is_clean(tmp_path: Path) -> None:
    assert codes(shard(tmp_path)) == set()


def test_a_matrix_of_the_wrong_shape(tmp_path: Path) -> None:
    def repeat(_: int, document: Document) -> None:
        document["similarity_matrix"] *= len(document["text_list"])

    assert codes(shard(tmp_path, repeat)) == {"SIM001"}


@pytest.mark.parametrize("tag", ["<image>", "<|endofchunk|>"])
def test_a_media_tag_left_in_the_text(tag: str, tmp_path: Path) -> None:
    def leave(_: int, document: Document) -> None:
        document["text_list"][0] = f"{tag}\n{document['text_list'][0]}"

    assert codes(shard(tmp_path, leave)) == {"TXT001"}


def test_one_picture_for_every_image(tmp_path: Path) -> None:
    same = base64.b64encode(make_image(7)).decode()

    def replace(number: int, document: Document) -> None:
        if number < 6:
            document["image_info"][0]["image_base64"] = same

    path = shard(tmp_path, replace)
    (finding,) = validate(Validate(shards=(str(path),), workers=0)).findings
    assert finding.code == "IMG005"
    assert finding.got.startswith("6 of 10 images, in 6 documents, are ")


def test_an_index_of_the_record_before(tmp_path: Path) -> None:
    before = [5]

    def carry(_: int, document: Document) -> None:
        image = document["image_info"][0]
        image["matched_text_index"], before[0] = before[0], image["matched_text_index"]

    assert codes(shard(tmp_path, carry)) == {"ALN001", "ALN004"}


def test_gzip_in_a_tar(tmp_path: Path) -> None:
    path = shard(tmp_path)
    path.write_bytes(gzip.compress(path.read_bytes()))
    (finding,) = validate(Validate(shards=(str(path),), workers=0)).findings
    assert finding.code == "TAR001"
    assert "gzip-compressed data: unpack it first" in finding.got


def test_in_documents_of_ours_a_tag_is_text(tmp_path: Path) -> None:
    from tests.shard_factory import make_shard_of

    document = make_document(0)
    document["text_list"][0] = "Write <image> here."
    make_shard_of(tmp_path, document)
    report = validate(Validate(shards=(str(tmp_path),), workers=0))
    assert [f.code for f in report.findings if f.code == "TXT001"] == []
