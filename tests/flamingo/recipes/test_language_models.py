"""A folder stands in for a language model of the table: its config, and as many tokens."""

from pathlib import Path

from transformers import AutoConfig, AutoTokenizer

from flamingo.recipes.language_models import known_language_models, stand_in
from mmdata.training_view.tokenizer import add_media_tokens, num_rows


def test_a_stand_in_has_the_published_sizes_and_goes_again() -> None:
    """50280 rows, media tokens included, are what the released checkpoints have."""
    for name in known_language_models():
        with stand_in(name) as folder:
            config = AutoConfig.from_pretrained(folder)
            tokenizer = AutoTokenizer.from_pretrained(folder)
            add_media_tokens(tokenizer)
            assert num_rows(tokenizer) == 50280
            assert config.hidden_size in (2048, 2560, 4096)
        assert not Path(folder).exists()


def test_another_model_is_left_to_its_name() -> None:
    with stand_in("somebody/another-lm") as name:
        assert name == "somebody/another-lm"
