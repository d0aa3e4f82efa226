"""What OpenFlamingo's loader loses and mispairs, on documents made to show it.

The rules are from its source (docs/rules.md names the commit); MMC4's own README example, whose
first image belongs to the later sentence, is the order that it gets wrong.
"""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from mmdata.forecast.openflamingo import PeerTally, judge
from mmdata.selection import SelectionPolicy
from tests.shard_factory import encode

POLICY = SelectionPolicy(min_similarity=0.24)


def picture(num_bytes: int, seed: int = 0) -> bytes:
    """A JPEG of noise, filled up to a size behind its end mark, as readers allow."""
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=50)
    return sink.getvalue().ljust(num_bytes, b"\0")


def document(
    matrix: list[list[float]], pictures: list[bytes | None], texts: list[str] | None = None
) -> dict[str, Any]:
    """As OpenFlamingo's script writes it."""
    return {
        "text_list": texts or [f"Sentence {n}." for n in range(len(matrix[0]))],
        "image_info": [
            {} if data is None else {"image_base64": base64.b64encode(data).decode()}
            for data in pictures
        ],
        "similarity_matrix": matrix,
    }


def tally_of(*documents: dict[str, Any] | bytes) -> PeerTally:
    tally = PeerTally()
    for one in documents:
        judge({"json": memoryview(encode(one))}, POLICY, None, tally)
    return tally


IN_ORDER = [[0.3, 0.1], [0.1, 0.3]]
README_ORDER = [[0.1, 0.3], [0.3, 0.1]]
LARGE = picture(20_000)


def test_pictures_in_another_order_than_their_sentences_are_paired_wrongly() -> None:
    assert tally_of(document(IN_ORDER, [LARGE, LARGE])).mispaired == 0
    wrong = tally_of(document(README_ORDER, [LARGE, LARGE]))
    assert (wrong.used, wrong.mispaired) == (1, 1)


def test_one_picture_cannot_be_paired_wrongly() -> None:
    tally = tally_of(document([[0.1, 0.3]], [LARGE]))
    assert (tally.used, tally.mispaired, tally.single_image) == (1, 0, 1)


def test_ten_kilobytes_are_eleven_thousand_bytes() -> None:
    tally = tally_of(
        document([[0.3]], [picture(10_999)]),
        document([[0.3]], [picture(11_000)]),
    )
    assert (tally.used, dict(tally.dropped)) == (1, {"images-too-few-bytes": 1})


def test_one_bad_image_takes_its_document_along() -> None:
    broken = b"\xff\xd8\xff" + bytes(20_000)
    tally = tally_of(document(IN_ORDER, [LARGE, broken]))
    assert dict(tally.dropped) == {"one-undecodable-image": 1}


def test_a_small_bad_image_is_never_decoded() -> None:
    tally = tally_of(document(IN_ORDER, [LARGE, b"not an image"]))
    assert (tally.used, dict(tally.images_dropped)) == (1, {"too-few-bytes": 1})


def test_an_image_without_bytes_is_left_out() -> None:
    tally = tally_of(document(IN_ORDER, [LARGE, None]))
    assert (tally.used, dict(tally.images_dropped)) == (1, {"missing": 1})


def test_a_given_alignment_means_nothing_to_it() -> None:
    given = document(README_ORDER, [LARGE, LARGE]) | {"alignment": "given"}
    for image, place in zip(given["image_info"], (0, 1), strict=True):
        image |= {"matched_text_index": place, "matched_sim": 0.1}
    assert tally_of(given).mispaired == 1


def test_what_it_cannot_read_and_what_is_not_judged() -> None:
    without = document(IN_ORDER, [LARGE, LARGE])
    del without["similarity_matrix"]
    tally = tally_of(b"{", without, document(IN_ORDER, [LARGE, LARGE]) | {"is_gpt": True})
    assert dict(tally.dropped) == {
        "bad-record": 1,
        "no-similarity-matrix": 1,
        "unsupported-record": 1,
    }
    assert tally.looked_at == 3


def test_a_tag_in_the_text_is_a_tag_to_it() -> None:
    texts = ["A page about <image> tags.", "And more."]
    assert tally_of(document(IN_ORDER, [LARGE, LARGE], texts)).extra_tags == 1
