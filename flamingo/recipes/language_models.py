"""Published sizes of the recipes' language models, so that an estimate needs no network.

An estimate depends on the sizes in a model's config and on the number of its tokens, on nothing
else. `language_models.json` has both, from the configs that the models were published with; of
these a folder is made that stands in for the model: a config, and a tokenizer of as many words that
nobody reads. It is for estimates only: a run takes the model by its name.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, PreTrainedTokenizerFast

_END = "<|endoftext|>"
_TABLE = Path(__file__).with_name("language_models.json")


def known_language_models() -> dict[str, dict[str, Any]]:
    """Name on the hub -> `config` (of transformers), `tokens` (of its tokenizer), `note`."""
    table: dict[str, dict[str, Any]] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return table


@contextmanager
def stand_in(name: str) -> Iterator[str]:
    """A folder that stands in for a language model, while it is needed; another name is given back.

    Args:
        name: on the hub, or a folder.
    """
    known = known_language_models().get(name)
    if known is None:
        yield name
        return
    with TemporaryDirectory(prefix="mmdata-recipe-") as folder:
        AutoConfig.for_model(**known["config"]).save_pretrained(folder)
        words = {_END: 0} | {f"w{number}": number for number in range(1, known["tokens"])}
        engine = Tokenizer(WordLevel(words, unk_token=_END))
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=engine, bos_token=_END, eos_token=_END, unk_token=_END
        )
        tokenizer.save_pretrained(folder)
        yield folder
