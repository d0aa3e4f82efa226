"""Tokens are those of the text alone, on a sample, with a tokenizer of the fast kind."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from mmdata.errors import UserError
from mmdata.report.picks import Pick
from mmdata.report.tokens import count_tokens, load_tokenizer
from tests.shard_factory import flip, make_document, make_shard_of


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """One token a character between spaces; `</s>` is special to it."""
    vocabulary = {character: number for number, character in enumerate("abc</s>?")}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["</s>"])
    made.enable_truncation(3)
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_tokens_of_the_sentences_joined(tmp_path: Path, tokenizer: Path) -> None:
    document = make_document(1)
    document["text_list"] = ["ab c", "", "aaaa </s>"]
    dataset = make_shard_of(tmp_path / "shards", document)
    picks = [Pick(0.0, str(dataset.path()), row) for row in dataset.read_samples()]
    count = count_tokens(picks, load_tokenizer(str(tokenizer)), "t")
    assert count.distribution.total == 3 + 4 + 4  # `</s>` in a text is four characters
    assert count.text_bytes == 13
    assert count.estimate(26) == 22


def test_a_folder_stands_for_the_file_in_it(tokenizer: Path) -> None:
    assert load_tokenizer(str(tokenizer.parent)).get_vocab_size() >= 8


def test_a_damaged_document_is_counted_apart(tmp_path: Path, tokenizer: Path) -> None:
    dataset = make_shard_of(tmp_path / "shards", make_document(1), make_document(2))
    flip(dataset.path(), dataset.read_samples()[0]["offset"] + 40)
    picks = [Pick(0.0, str(dataset.path()), row) for row in dataset.read_samples()]
    count = count_tokens(picks, load_tokenizer(str(tokenizer)), "t")
    assert (count.distribution.size, count.unreadable) == (1, 1)


def test_what_is_no_tokenizer_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file; name a tokenizer\.json"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"not a tokenizer\.json"):
        load_tokenizer(str(tmp_path))


def test_nothing_was_counted() -> None:
    count = count_tokens([], Tokenizer(models.BPE()), "t")
    assert count.estimate(1000) == 0
