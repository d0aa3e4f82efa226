"""Our tokens in a tokenizer: ids, order, and no second time."""

from mmdata.training_view.tokenizer import add_media_tokens, num_rows
from tests.flamingo.models.flamingo.tiny_hub import tokenizer


def test_tokens_are_added_in_openflamingos_order():
    tok = tokenizer()
    names = ["<|endofchunk|>", "<image>", "<PAD>"]
    assert tok.convert_tokens_to_ids(names) == [2000, 2001, 2002]
    assert num_rows(tok) == 2003
    assert tok("<image>A cat<|endofchunk|>")["input_ids"][0] == 2001


def test_adding_them_again_changes_nothing():
    tok = tokenizer()
    before = tok.get_vocab()
    ids = add_media_tokens(tok)
    assert tok.get_vocab() == before
    assert (ids.eoc, ids.media, ids.pad) == (2000, 2001, 2002)


def test_a_padding_token_that_is_there_is_kept():
    tok = tokenizer()
    tok.pad_token = tok.eos_token
    assert add_media_tokens(tok).pad == tok.eos_token_id


def test_they_are_special_to_a_decoder():
    tok = tokenizer()
    ids = tok("<image>A cat<|endofchunk|>")["input_ids"]
    assert tok.decode(ids, skip_special_tokens=True) == "A cat"


def test_a_saved_tokenizer_has_the_same_ids(tmp_path):
    tok = tokenizer()
    tok.save_pretrained(tmp_path)
    from mmdata.training_view.tokenizer import load_tokenizer

    again = load_tokenizer(str(tmp_path), local_files_only=True)
    assert again.get_vocab() == tok.get_vocab()
    assert again.pad_token_id == tok.pad_token_id
