"""Long documents: cut where a tag begins, every image with its text, nothing lost but what is said.

The properties are checked for any document that hypothesis comes up with; the stream's part (order,
positions, the coin) on real shards.
"""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flamingo.data.order import Position
from flamingo.data.stream import Stream
from mmdata.training_view.chunks import Pair, cut_document
from mmdata.training_view.sequence import MediaTokenizer, interleaved_tokens

from .conftest import colour_of, config_of, make_page, write_pages

MAX_IMAGES = 3


@st.composite
def documents(draw: st.DrawFn) -> tuple[list[str], list[Pair]]:
    """Sentences, and images at some of them, several at one now and then."""
    words = st.text("ab cd", max_size=30)
    sentences = draw(st.lists(words, min_size=1, max_size=12))
    places = draw(st.lists(st.integers(0, len(sentences) - 1), min_size=1, max_size=10))
    return sentences, list(enumerate(sorted(places)))


@given(documents(), st.integers(6, 60))
def test_every_image_is_in_one_chunk_with_its_text_or_is_accounted_for(
    tokenizer: MediaTokenizer, document: tuple[list[str], list[Pair]], max_tokens: int
) -> None:
    sentences, pairs = document
    cut = cut_document(sentences, pairs, tokenizer, max_tokens=max_tokens, max_images=MAX_IMAGES)
    used = [image for chunk in cut.chunks for image, _ in chunk.pairs]
    assert sorted([*used, *cut.over_cap, *cut.cut_off]) == [image for image, _ in pairs]
    assert used == sorted(used)
    for chunk in cut.chunks:
        assert len(chunk.input_ids) <= max_tokens
        assert 1 <= len(chunk.pairs) <= MAX_IMAGES
        assert chunk.input_ids.count(tokenizer.image_id) == len(chunk.pairs)
        assert chunk.input_ids[-1] != tokenizer.image_id
        assert all(chunk.first <= sentence < chunk.last for _, sentence in chunk.pairs)
    for one, other in pairwise(cut.chunks):
        assert one.last <= other.first


@given(documents(), st.integers(6, 60))
def test_a_chunk_is_what_its_sentences_are_by_themselves(
    tokenizer: MediaTokenizer, document: tuple[list[str], list[Pair]], max_tokens: int
) -> None:
    sentences, pairs = document
    for chunk in cut_document(
        sentences, pairs, tokenizer, max_tokens=max_tokens, max_images=MAX_IMAGES
    ).chunks:
        places = [sentence - chunk.first for _, sentence in chunk.pairs]
        text = sentences[chunk.first : chunk.last]
        assert chunk.input_ids == interleaved_tokens(text, places, tokenizer, max_tokens).input_ids


def test_of_a_long_beginning_the_last_sentences_stay(tokenizer: MediaTokenizer) -> None:
    sentences = [*(f"Sentence {number} comes before." for number in range(40)), "A cat.", "A dog."]
    (chunk,) = cut_document(
        sentences, [(0, 40), (1, 41)], tokenizer, max_tokens=64, max_images=6
    ).chunks
    assert 0 < chunk.first < 40
    text = tokenizer.decode(chunk.input_ids)
    assert "<image>A cat.<|endofchunk|><image>A dog.<|endofchunk|>" in text
    assert "Sentence 39 comes before.<image>A cat." in text
    assert "Sentence 0 " not in text


def album(number: int, images: int = 7) -> dict[str, Any]:
    """A page with a sentence for each of many images."""
    return make_page(number, list(range(images)), sentences=images)


def drawn(stream: Stream, start: Position | None = None) -> list[tuple[str, list[Any], Position]]:
    """Two epochs of single samples, of the one lane: key, colours, position behind."""
    found = []
    for batch in stream.batches(start):
        assert batch.pixels is not None
        colours = [tuple(image[:, 0, 0].tolist()) for image in batch.pixels]
        found.append((batch.keys[0], colours, batch.position))
        if batch.position.last_epoch == 2:
            return found
    raise AssertionError("a training stream ends never")


class TestInTheStream:
    @pytest.fixture
    def shards(self, tmp_path: Path) -> str:
        pages = [[album(shard * 3 + n) for n in range(3)] for shard in range(2)]
        write_pages(tmp_path / "long", pages)  # type: ignore[arg-type]
        return str(tmp_path / "long")

    def test_chunks_follow_one_another_and_use_every_image(
        self, shards: str, tokenizer: MediaTokenizer
    ) -> None:
        config = config_of(shards, batch_size=1, max_images=3, long_documents="chunk")
        first_epoch = [one for one in drawn(Stream(config, tokenizer)) if one[2].last_epoch == 0]
        assert [len(colours) for _, colours, _ in first_epoch[:6]] == [3, 3, 1, 3, 3, 1]
        for at in range(0, 15, 3):
            keys = {key for key, _, _ in first_epoch[at : at + 3]}
            assert len(keys) == 1
            page = int(keys.pop())
            colours = [colour for _, few, _ in first_epoch[at : at + 3] for colour in few]
            assert colours == [colour_of(page, image) for image in range(7)]

    def test_the_coin_does_not_apply_to_a_chunk_of_one_image(
        self, shards: str, tokenizer: MediaTokenizer
    ) -> None:
        config = config_of(
            shards, batch_size=1, max_images=3, long_documents="chunk", keep_single_image=0.0
        )
        sizes = Counter(len(colours) for _, colours, _ in drawn(Stream(config, tokenizer)))
        assert sizes == {3: 24, 1: 12}

    def test_truncation_uses_the_first_images_alone(
        self, shards: str, tokenizer: MediaTokenizer
    ) -> None:
        stream = Stream(config_of(shards, batch_size=1, max_images=3), tokenizer)
        assert {len(colours) for _, colours, _ in drawn(stream)} == {3}
        assert stream.drops["image:over-max-images"] >= 5

    def test_a_position_inside_a_document_goes_on_with_its_next_chunk(
        self, shards: str, tokenizer: MediaTokenizer
    ) -> None:
        config = config_of(shards, batch_size=1, max_images=3, long_documents="chunk")
        whole = drawn(Stream(config, tokenizer))
        assert whole[0][2].lane(0).chunk == 1
        for at in range(len(whole) - 1):
            assert drawn(Stream(config, tokenizer), whole[at][2]) == whole[at + 1 :]

    def test_a_broken_image_costs_its_chunk_nothing_else(
        self, tmp_path: Path, tokenizer: MediaTokenizer
    ) -> None:
        page = album(0)
        page["image_info"][4]["image_base64"] = "AAAA"
        page["image_info"][6]["image_base64"] = "AAAA"
        write_pages(tmp_path / "p", [[page]])
        config = config_of(tmp_path / "p", batch_size=1, max_images=3, long_documents="chunk")
        stream = Stream(config, tokenizer, validation=True)
        batches = list(stream.batches())
        assert [batch.num_images for batch in batches] == [3, 2]
        assert stream.drops == {"image:undecodable": 1, "document:images-undecodable": 1}
