"""Tokens per document, counted on a seeded sample: a dataset's text is in its shards, not tables.

Text alone is counted, as the trainer tokenises it: sentences joined by a space, special tokens
off. A trainer adds two tokens an image and one at the end.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmdata.errors import MissingExtraError, MMDataError, UserError
from mmdata.report.distribution import Distribution
from mmdata.report.gallery import texts_of
from mmdata.report.picks import Pick
from mmdata.validation.documents import Unreadable

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Documents that tokens are counted on: the mean is then right to some per cent.
SAMPLE = 500
_FILE = "tokenizer.json"


@dataclass(slots=True)
class TokenCount:
    """Tokens of some documents.

    Attributes:
        tokenizer: as it was named.
        unreadable: documents of the sample that could not be read.
        text_bytes: of the documents that were counted.
    """

    tokenizer: str
    distribution: Distribution = field(default_factory=lambda: Distribution("octave"))
    unreadable: int = 0
    text_bytes: int = 0

    def estimate(self, text_bytes: int) -> int:
        """Tokens of so many bytes of text, at the sample's ratio."""
        if not self.text_bytes:
            return 0
        return round(self.distribution.total / self.text_bytes * text_bytes)


def load_tokenizer(path: str) -> "Tokenizer":
    """A fast tokenizer: a `tokenizer.json`, or a folder that holds one.

    Raises:
        MissingExtraError: the library that reads it is not installed.
        UserError: there is none, or it cannot be read.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError("train", "tokenizers", "mmdata report --tokenizer") from error
    file = os.path.join(path, _FILE) if os.path.isdir(path) else path
    if not os.path.isfile(file):
        raise UserError(f"--tokenizer {path}: no such file; name a {_FILE} or the folder of one")
    try:
        tokenizer: Tokenizer = Tokenizer.from_file(file)
    # The library raises plain Exception for a file that it cannot read, and nothing narrower.
    except Exception as error:
        raise UserError(f"--tokenizer {file}: not a {_FILE}: {error}") from error
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


def count_tokens(picks: Sequence[Pick], tokenizer: "Tokenizer", name: str) -> TokenCount:
    """Count the tokens of the picked documents.

    Args:
        picks: the documents; those that cannot be read are counted apart.
        tokenizer: of the tokenizers library.
        name: of the tokenizer, as it was given.
    """
    count = TokenCount(name)
    for one in picks:
        try:
            text = " ".join(texts_of(one))
        except (Unreadable, MMDataError, OSError):
            count.unreadable += 1
            continue
        count.distribution.add([len(tokenizer.encode(text, add_special_tokens=False).ids)])
        count.text_bytes += one.row["text_bytes"]
    return count
