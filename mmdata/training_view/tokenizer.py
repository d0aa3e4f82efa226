"""The tokenizer with our tokens: `<|endofchunk|>`, `<image>`, and `<PAD>` where it has no padding.

They are added in this order, which is OpenFlamingo's, so their ids are those of its checkpoints.
transformers is loaded where it is used: seconds, and torch with it where that is installed.
"""

from dataclasses import dataclass
from typing import Any

from mmdata.errors import UserError
from mmdata.training_view.model_names import refuse_missing_folder
from mmdata.training_view.sequence import EOC_TOKEN, MEDIA_TOKEN

PAD_TOKEN = "<PAD>"


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenIds:
    """Ids of the tokens that mean something to the model."""

    eoc: int
    media: int
    pad: int


def load_tokenizer(
    path: str,
    *,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    cache_dir: str | None = None,
) -> Any:
    """A transformers tokenizer with the media tokens in it.

    Args:
        path: a folder or a name on the hub.
        local_files_only: whether the network is left alone.
        trust_remote_code: whether code that comes with it may run.
        cache_dir: of downloads; None for the library's own.

    Raises:
        UserError: there is none of this name.
    """
    refuse_missing_folder(f"tokenizer {path}", path)
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path,
            local_files_only=local_files_only,
            trust_remote_code=trust_remote_code,
            cache_dir=cache_dir,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"tokenizer {path}: {_first_line(error)}") from error
    add_media_tokens(tokenizer)
    return tokenizer


def add_media_tokens(tokenizer: Any) -> TokenIds:
    """Adds what is missing, in place; does nothing the second time."""
    from tokenizers import AddedToken

    missing = [
        AddedToken(text, special=True, normalized=False)
        for text in (EOC_TOKEN, MEDIA_TOKEN)
        if text not in tokenizer.get_vocab()
    ]
    tokenizer.add_tokens(missing, special_tokens=True)
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    return token_ids(tokenizer)


def token_ids(tokenizer: Any) -> TokenIds:
    """Ids of the tokens in a tokenizer that has them."""
    eoc, media = tokenizer.convert_tokens_to_ids([EOC_TOKEN, MEDIA_TOKEN])
    return TokenIds(eoc=eoc, media=media, pad=tokenizer.pad_token_id)


def num_rows(tokenizer: Any) -> int:
    """Rows of an embedding matrix for this tokenizer (its ids may have gaps)."""
    return int(max(len(tokenizer), max(tokenizer.get_vocab().values()) + 1))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
