"""What OpenFlamingo's loader loses and mispairs, on documents made to show it.

The rules are from its source (docs/rules.md names the commit); MMC4's own README example, whose
first image belongs to the later sentence, is the order that it gets wrong.
"""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoTokenizer

from mmdata.forecast.openflamingo import (
    IN_WORDS,
    PeerTally,
    PeerTask,
    judge,
    judge_pair,
    judge_shard,
)
from mmdata.training_view.selection import SelectionPolicy
from mmdata.training_view.sequence import MediaTokenizer
from mmdata.training_view.tokenizer import add_media_tokens
from tests.conftest import ROOT
from tests.shard_factory import encode, make_image, make_tar

POLICY = SelectionPolicy(min_similarity=0.24)


def picture(num_bytes: int, seed: int = 0) -> bytes:
    """A JPEG of noise, filled up to a size behind its end mark, as readers allow."""
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=50)
    return sink.getvalue().ljust(num_bytes, b"\0")


def document(
    matrix: list[Any], pictures: list[bytes | None], texts: list[str] | None = None
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


class TestMalformed:
    """It reads less strictly than we do, and loses a document to whatever raises."""

    @pytest.mark.parametrize(
        ("matrix", "texts", "used"),
        [
            ([[0.3, 0.1], [0.1, 0.3], [0.9, 0.9]], ["A.", "B."], 2),  # a row too many
            ([[0.3, 0.1, 0.1], [0.1, 0.3, 0.1]], ["A.", "B."], 2),  # a column too many
            ([[0.3, 0.1], [0.1, 0.3]], ["A.", "B.", "C."], 2),  # one too few
            ([[1, 0], [0, 1]], ["A.", "B."], 2),
            ([[True, 0.1], [0.1, 0.3]], ["A.", "B."], 2),
        ],
    )
    def test_matrices_that_it_uses(self, matrix: list[Any], texts: list[str], used: int) -> None:
        tally = tally_of(document(matrix, [LARGE, LARGE], texts))
        assert (tally.used, tally.images_used) == (1, used)

    @pytest.mark.parametrize(
        ("matrix", "reason"),
        [
            ([[0.3, 0.1]], "bad-matrix"),  # no row for the second image
            ([[0.3, 0.1], [0.3]], "bad-matrix"),
            ([[0.3, None], [0.1, 0.3]], "bad-matrix"),
            ([[0.3, "0.1"], [0.1, 0.3]], "bad-matrix"),
            ([[0.3, float("nan")], [0.1, 0.3]], "bad-matrix"),
            ([[True, False], [False, True]], "bad-matrix"),
            ([0.3, 0.1], "bad-matrix"),
            ([[0.1, 0.1, 0.9], [0.1, 0.3, 0.1]], "no-such-sentence"),
        ],
    )
    def test_matrices_that_raise(self, matrix: list[Any], reason: str) -> None:
        tally = tally_of(document(matrix, [LARGE, LARGE], ["A.", "B."]))
        assert dict(tally.dropped) == {reason: 1}

    def base64_of(self, change: Any) -> PeerTally:
        one = document(IN_ORDER, [LARGE, LARGE])
        one["image_info"][1]["image_base64"] = change(one["image_info"][1]["image_base64"])
        return tally_of(one)

    def test_line_breaks_in_base64_are_passed_over(self) -> None:
        by_lines = self.base64_of(lambda text: base64.encodebytes(LARGE).decode())
        assert (by_lines.used, by_lines.images_used) == (1, 2)

    @pytest.mark.parametrize(
        ("value", "reason"),
        [(None, "base64-no-text"), (7, "base64-no-text"), ("é" * 20_000, "bad-base64")],
    )
    def test_what_is_no_base64_takes_its_document_along(self, value: Any, reason: str) -> None:
        assert dict(self.base64_of(lambda _: value).dropped) == {reason: 1}

    def test_missing_padding_takes_its_document_along(self) -> None:
        assert dict(self.base64_of(lambda text: text.rstrip("=")).dropped) == {"bad-base64": 1}
        assert base64.b64encode(LARGE).endswith(b"=")

    def test_bytes_literals_come_out_as_no_image(self) -> None:
        tally = self.base64_of(lambda text: str(text.encode()))
        assert sum(tally.dropped.values()) == 1

    def test_a_tag_in_the_text_saves_a_document_from_the_coin_and_takes_the_picture(self) -> None:
        one = document([[0.1, 0.3]], [LARGE], ["An <image> tag.", "Its own."])
        tally = tally_of(one)
        assert (tally.used, tally.single_image, tally.extra_tags, tally.mispaired) == (1, 0, 1, 1)

    def test_a_tag_behind_the_pictures_takes_none_of_them(self) -> None:
        one = document([[0.3, 0.1]], [LARGE], ["Its own.", "An <image> tag."])
        tally = tally_of(one)
        assert (tally.extra_tags, tally.mispaired) == (1, 0)

    @pytest.mark.parametrize("entry", [None, 7, "image_base64", ["image_base64"]])
    def test_an_image_that_is_no_object(self, entry: Any) -> None:
        one = document(IN_ORDER, [LARGE, LARGE])
        one["image_info"][0] = entry
        assert dict(tally_of(one).dropped) == {"bad-record": 1}

    JSON = st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=6,
    )

    @given(JSON, JSON, JSON)
    def test_whatever_a_document_holds_is_counted(
        self, texts: Any, images: Any, matrix: Any
    ) -> None:
        whole = {"text_list": texts, "image_info": images, "similarity_matrix": matrix}
        for one in (whole, texts):
            tally = tally_of(json.dumps(one).encode())
            assert tally.looked_at == tally.used + sum(tally.dropped.values()) == 1


@pytest.fixture(scope="module")
def tokenizer() -> MediaTokenizer:
    found = AutoTokenizer.from_pretrained(ROOT / "tests" / "assets" / "parity_text" / "tokenizer")
    add_media_tokens(found)
    return MediaTokenizer(found)


class TestWithATokenizer:
    def judged(self, tokenizer: MediaTokenizer, one: dict[str, Any]) -> PeerTally:
        tally = PeerTally()
        judge({"json": memoryview(encode(one))}, POLICY, tokenizer, tally)
        return tally

    def test_a_tag_beyond_the_cut_is_gone_and_the_coin_is_for_what_is_left(
        self, tokenizer: MediaTokenizer
    ) -> None:
        texts = ["Short.", "long " * 400, "Beyond."]
        one = document([[0.3, 0.1, 0.1], [0.1, 0.1, 0.3]], [LARGE, LARGE], texts)
        tally = self.judged(tokenizer, one)
        assert (tally.used, tally.single_image, tally.images_used) == (1, 1, 1)
        assert dict(tally.images_dropped) == {"cut-off": 1}

    def test_no_tag_is_left(self, tokenizer: MediaTokenizer) -> None:
        one = document([[0.1, 0.3]], [LARGE], ["long " * 400, "Beyond."])
        assert dict(self.judged(tokenizer, one).dropped) == {"cut-off": 1}

    def test_literal_tags_are_tokens(self, tokenizer: MediaTokenizer) -> None:
        one = document([[0.3, 0.1]], [LARGE], ["Its own.", "An <image> tag."])
        assert self.judged(tokenizer, one).single_image == 0


class TestCaptions:
    def of(self, **members: bytes) -> PeerTally:
        tally = PeerTally()
        judge_pair({kind: memoryview(data) for kind, data in members.items()}, tally)
        return tally

    @pytest.mark.parametrize("kind", ["jpg", "jpeg", "png"])
    def test_pictures_that_it_looks_for(self, kind: str) -> None:
        tally = self.of(**{kind: make_image(1), "txt": b"", "json": b"{}"})
        assert (tally.used, tally.images_used, tally.single_image) == (1, 1, 0)

    def test_webp_is_left_out_in_silence(self) -> None:
        tally = self.of(webp=make_image(1, kind="webp"), txt=b"A picture.")
        assert dict(tally.dropped) == {"picture-webp": 1}
        assert "--image-format jpeg" in IN_WORDS["picture-webp"]

    @pytest.mark.parametrize(
        ("members", "reason"),
        [
            ({"jpg": b"no image", "txt": b"A"}, "one-undecodable-image"),
            ({"jpg": make_image(1), "png": b"no image", "txt": b"A"}, "one-undecodable-image"),
            ({"jpg": make_image(1)}, "no-text"),
            ({"txt": b"A"}, "not-a-pair"),
            ({"jpg": make_image(1), "txt": b"\xff"}, "bad-record"),
            ({"jpg": make_image(1), "txt": b"A", "json": b"{"}, "bad-record"),
        ],
    )
    def test_what_it_loses(self, members: dict[str, bytes], reason: str) -> None:
        assert dict(self.of(**members).dropped) == {reason: 1}

    def test_members_that_stand_apart_are_samples_without_their_other_half(
        self, tmp_path: Any
    ) -> None:
        members = [("a.jpg", make_image(1)), ("b.jpg", make_image(2)), ("a.txt", b"A")]
        (tmp_path / "0.tar").write_bytes(make_tar([*members, ("b.txt", b"B")]))
        task = PeerTask(path=str(tmp_path / "0.tar"), rule="caption", min_similarity=0.24)
        tally = judge_shard(task)
        assert (tally.used, dict(tally.dropped)) == (0, {"no-text": 2, "not-a-pair": 2})
