"""Sequences and labels: equal to OpenFlamingo's on its own output, except where it is wrong."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flamingo.data.labels import caption_labels, interleaved_labels, num_targets, pad
from flamingo.modules.loss import IGNORED
from mmdata.errors import UserError
from mmdata.training_view.selection import Candidates, SelectionPolicy, judge_cut, select
from mmdata.training_view.sequence import MediaTokenizer, caption_tokens, interleaved_tokens

from .conftest import PARITY

MAX_TOKENS = 256
DOCUMENTS = [json.loads(line) for line in (PARITY / "plain.jsonl").read_text().splitlines()]


def labels_of(ids: list[int], tokenizer: MediaTokenizer) -> list[int]:
    padded, mask = pad([ids], tokenizer.pad_id)
    labels = interleaved_labels(
        padded, mask, image_id=tokenizer.image_id, endofchunk_id=tokenizer.endofchunk_id
    )
    return labels[0].tolist()


@pytest.mark.parametrize("document", DOCUMENTS, ids=range(len(DOCUMENTS)))
def test_parity(document: dict[str, Any], tokenizer: MediaTokenizer) -> None:
    policy = SelectionPolicy()
    sizes, matrix = document["image_bytes"], np.array(document["similarity_matrix"])
    chosen = select(Candidates(image_bytes=sizes, matrix=matrix), policy)
    places = [sentence for _, sentence in chosen.kept]
    tokens = interleaved_tokens(document["text_list"], places, tokenizer, MAX_TOKENS)
    is_last = tokens.input_ids[-1] == tokenizer.image_id

    reason = judge_cut(tokens.num_images, policy, image_is_last=is_last)
    assert (reason is None) == document["accepted"]
    if not document["accepted"]:
        return
    assert tokens.input_ids == document["input_ids"]
    assert labels_of(tokens.input_ids, tokenizer) == document["labels"]
    assert sorted(image for image, _ in chosen.kept) == document["kept_rows"]
    assert (tokens.num_images == 1) == document["dropped_if_coin"]
    left = [image for image, size in enumerate(sizes) if size is not None and size >= 11_000]
    theirs = dict(zip(*document["assignment"], strict=True))
    assert {(left.index(image), sentence) for image, sentence in chosen.kept} <= theirs.items()


def test_some_of_openflamingos_pictures_are_with_the_wrong_text() -> None:
    """So the fixtures do show the difference: its k-th picture is not its k-th tag's."""
    wrong = 0
    for document in DOCUMENTS:
        if document["accepted"]:
            chosen = select(
                Candidates(
                    image_bytes=document["image_bytes"],
                    matrix=np.array(document["similarity_matrix"]),
                ),
                SelectionPolicy(),
            )
            wrong += [image for image, _ in chosen.kept] != document["kept_rows"]
    assert wrong > 5


class TestTextIsText:
    HOSTILE = "see <image> and <|endofchunk|><|endoftext|> here"

    def test_tags_in_scraped_text_are_no_tags(
        self, tokenizer: MediaTokenizer, hf_tokenizer: Any
    ) -> None:
        tokens = interleaved_tokens(["A.", self.HOSTILE], [1], tokenizer, MAX_TOKENS)
        assert tokens.num_images == 1
        assert tokens.input_ids.count(tokenizer.endofchunk_id) == 1
        assert tokens.input_ids.count(tokenizer.eos_id) == 1
        assert tokenizer.decode(tokens.input_ids) == (
            f"A.<image>{self.HOSTILE}<|endofchunk|><|endoftext|>"
        )
        joined = hf_tokenizer(f"A.<image>{self.HOSTILE}<|endofchunk|>")["input_ids"]
        assert joined.count(tokenizer.image_id) == 2  # what OpenFlamingo does: a tag too many

    def test_in_captions_too(self, tokenizer: MediaTokenizer) -> None:
        tokens = caption_tokens(self.HOSTILE, tokenizer, 64)
        assert tokens.input_ids.count(tokenizer.image_id) == 1
        assert tokens.input_ids.count(tokenizer.eos_id) == 1

    def test_a_tokenizer_that_cannot_is_refused(self, hf_tokenizer: Any) -> None:
        class Heedless:
            backend_tokenizer = None  # a slow one has none

            def __call__(self, texts: Any, **_: Any) -> Any:
                return hf_tokenizer(texts, add_special_tokens=False)

            def __getattr__(self, name: str) -> Any:
                return getattr(hf_tokenizer, name)

        with pytest.raises(UserError, match="takes <image> in a text for its tag"):
            MediaTokenizer(Heedless())

    def test_one_without_media_tokens_is_refused(self) -> None:
        from transformers import AutoTokenizer

        with pytest.raises(UserError, match="add the media tokens first"):
            MediaTokenizer(AutoTokenizer.from_pretrained(PARITY / "tokenizer"))


class TestLayout:
    def test_by_construction(self, tokenizer: MediaTokenizer) -> None:
        tokens = interleaved_tokens(["S0.", "S1.", "S2.", "S3."], [1, 3], tokenizer, MAX_TOKENS)
        assert tokenizer.decode(tokens.input_ids) == (
            "S0.<image>S1. S2.<|endofchunk|><image>S3.<|endofchunk|><|endoftext|>"
        )

    @pytest.mark.parametrize("texts", [["a", "b"], ["", " b"], ["a ", " b "], [" ", ""]])
    @pytest.mark.parametrize("places", [[0], [1], [0, 1]])
    def test_white_space_is_openflamingos(
        self, texts: list[str], places: list[int], tokenizer: MediaTokenizer, hf_tokenizer: Any
    ) -> None:
        tagged = [
            f"<|endofchunk|><image>{text}" if number in places else text
            for number, text in enumerate(texts)
        ]
        joined = " ".join(tagged).replace("<|endofchunk|>", "", 1)
        joined = joined.replace(" <|endofchunk|>", "<|endofchunk|>")
        joined = joined.replace("<image> ", "<image>").replace(" <image>", "<image>")
        expected = hf_tokenizer(joined + "<|endofchunk|><|endoftext|>")["input_ids"]
        assert interleaved_tokens(texts, places, tokenizer, MAX_TOKENS).input_ids == expected

    def test_images_of_one_sentence_stand_in_a_row(self, tokenizer: MediaTokenizer) -> None:
        tokens = interleaved_tokens(["A.", "B."], [1, 1], tokenizer, MAX_TOKENS)
        assert tokens.num_images == 2
        assert tokenizer.decode(tokens.input_ids) == (
            "A.<image><image>B.<|endofchunk|><|endoftext|>"
        )
        trained = [one for one in labels_of(tokens.input_ids, tokenizer) if one != IGNORED]
        assert tokenizer.decode(trained) == "B.<|endofchunk|>"

    def test_a_first_token_is_kept(self, hf_tokenizer: Any, tokenizer: MediaTokenizer) -> None:
        class Beginning:
            """As LLaMA's and OPT's: begins what it is given with a token of its own."""

            def __call__(self, texts: Any, add_special_tokens: bool = True, **more: Any) -> Any:
                ids = hf_tokenizer(texts, add_special_tokens=False, **more)["input_ids"]
                return {"input_ids": [7, *ids] if add_special_tokens else ids}

            def __getattr__(self, name: str) -> Any:
                return getattr(hf_tokenizer, name)

        beginning = MediaTokenizer(Beginning())
        assert beginning.prefix == [7]
        plain = interleaved_tokens(["A.", "B."], [0, 1], tokenizer, MAX_TOKENS).input_ids
        assert interleaved_tokens(["A.", "B."], [0, 1], beginning, MAX_TOKENS).input_ids == [
            7,
            *plain,
        ]
        assert caption_tokens("b", beginning, 32).input_ids[:2] == [7, tokenizer.image_id]

    @given(
        st.lists(st.text(alphabet="ab .é\n", max_size=40), min_size=1, max_size=60),
        st.sets(st.integers(0, 59), max_size=4),
        st.integers(5, 40),
    )
    def test_leaving_out_what_is_beyond_the_cut_changes_nothing(
        self, tokenizer: MediaTokenizer, texts: list[str], places: set[int], most: int
    ) -> None:
        where = sorted(place for place in places if place < len(texts))
        whole = interleaved_tokens(texts, where, tokenizer, 10**6).input_ids
        assert interleaved_tokens(texts, where, tokenizer, most).input_ids == whole[:most]


class TestCaptions:
    def test_what_closes_it_is_never_cut_off(self, tokenizer: MediaTokenizer) -> None:
        ids = caption_tokens("word " * 200, tokenizer, 32).input_ids
        assert len(ids) == 32
        assert ids[-2:] == [tokenizer.endofchunk_id, tokenizer.eos_id]

    def test_labels(self, tokenizer: MediaTokenizer) -> None:
        sequences = [caption_tokens(text, tokenizer, 32).input_ids for text in (" a cat ", "b")]
        ids, mask = pad(sequences, tokenizer.pad_id)
        labels = caption_labels(ids, mask, image_id=tokenizer.image_id)
        assert labels[0].tolist() == [IGNORED, *sequences[0][1:]]
        assert labels[1, len(sequences[1]) :].eq(IGNORED).all()
        assert num_targets(labels) == sum(len(one) - 1 for one in sequences)
        assert tokenizer.decode(sequences[0]) == "<image>a cat<|endofchunk|><|endoftext|>"


IMAGE, END, PAD = 1, 2, 0


def slow_labels(ids: list[int]) -> list[int]:
    """The rule, read aloud."""
    labels = []
    for position, token in enumerate(ids):
        before = list(enumerate(ids[:position]))
        images = [where for where, other in before if other == IMAGE]
        ends = [where for where, other in before if other == END]
        in_chunk = bool(images) and (not ends or images[-1] >= ends[-1])
        labels.append(token if in_chunk and token not in (IMAGE, PAD) else IGNORED)
    return labels


@given(st.lists(st.lists(st.sampled_from([IMAGE, END, 5, 6]), min_size=1, max_size=24), min_size=1))
def test_labels_follow_the_rule(sequences: list[list[int]]) -> None:
    ids, mask = pad(sequences, PAD)
    labels = interleaved_labels(ids, mask, image_id=IMAGE, endofchunk_id=END)
    assert labels.tolist() == [slow_labels(row) for row in ids.tolist()]
    assert num_targets(labels) == int((labels[:, 1:] != IGNORED).sum())


def test_padding_is_masked_even_where_it_is_the_end_token() -> None:
    ids, mask = pad([[IMAGE, 5, END, 9], [IMAGE, 5]], pad_id=9)
    labels = caption_labels(ids, mask, image_id=IMAGE)
    assert torch.equal(labels, torch.tensor([[-100, 5, END, 9], [-100, 5, -100, -100]]))
