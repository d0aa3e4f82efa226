"""Token sequences of samples, put together by construction; what a forecast needs no torch for.

    S0 <image>S1 S2<|endofchunk|><image>S3<|endofchunk|>{end}

Text is tokenised in pieces, with special tokens off, and the tags are put between the pieces as
ids. So `<image>` or `</s>` in scraped text stays text; OpenFlamingo tokenises the joined string,
where it becomes a tag without a picture. For other text the ids are OpenFlamingo's: sentences are
joined by a space, there is no space around a tag, the first `<|endofchunk|>` is left out, and a
tokenizer that begins its texts with a token keeps it. (A tokenizer that marks the first word of
a text marks that of every piece here.)

Images that share a sentence (`given` documents, surplus at its argmax) get one tag each in a row,
`<image><image>S`: a tag sees its own picture and the text sees the tags through self-attention,
while cross-attention sees the last one.
"""

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mmdata.errors import UserError

EOC_TOKEN = "<|endofchunk|>"
MEDIA_TOKEN = "<image>"
#: To guess how much text so many tokens are.
_USUAL_TEXT = (
    "The quick brown fox jumps over the lazy dog while a small crowd of photographers, most of "
    "them from the neighbouring town, waits for the sun to come out behind the mountains."
)
_SPARE_SHARE = 1.2
_MARGIN_TOKENS = 32


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """A sample's ids, and how many `<image>` tags are among them."""

    input_ids: list[int]
    num_images: int


class MediaTokenizer:
    """A transformers tokenizer that has the media tokens and a padding token.

    Attributes:
        tokenizer: transformers' own.
        image_id, endofchunk_id, pad_id, eos_id: ids of its tokens.
        prefix: what it begins its texts with: [bos] or nothing.
        usual_chars: characters of English text a token.

    Raises:
        UserError: it lacks one of them, or cannot take text for text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._plain = _plain_copy(tokenizer)
        self.image_id = self._id_of(MEDIA_TOKEN)
        self.endofchunk_id = self._id_of(EOC_TOKEN)
        if tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
            raise UserError("tokenizer: expected an end token and a padding token")
        self.eos_id: int = tokenizer.eos_token_id
        self.pad_id: int = tokenizer.pad_token_id
        self.prefix = self._find_prefix()
        self.usual_chars = len(_USUAL_TEXT) / len(self.encode_text(_USUAL_TEXT))
        if {self.image_id, self.endofchunk_id} & set(
            self.encode_text(f"a {MEDIA_TOKEN} b {EOC_TOKEN} c")
        ):
            raise UserError(
                f"tokenizer {type(tokenizer).__name__}: takes {MEDIA_TOKEN} in a text for its tag "
                "even with special tokens off; a fast tokenizer (tokenizer.json) does not"
            )

    def encode_text(self, text: str) -> list[int]:
        """Ids of a text in which nothing is special."""
        return self.encode_texts([text])[0]

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts."""
        if not texts:
            return []
        if self._plain is not None:
            found = self._plain.encode_batch_fast(list(texts), add_special_tokens=False)
            return [one.ids for one in found]
        ids: list[list[int]] = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
        return ids

    def encode_with_tags(self, text: str, max_tokens: int) -> list[int]:
        """Ids of a text in which a tag means a tag, as OpenFlamingo has them.

        Args:
            text: with `<image>` and `<|endofchunk|>` in it.
            max_tokens: where the ids are cut.
        """
        ids: list[int] = self.tokenizer(
            text, max_length=max_tokens, truncation=True, return_attention_mask=False
        )["input_ids"]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, tags included."""
        text: str = self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
        return text

    def _id_of(self, token: str) -> int:
        found = self.tokenizer.get_vocab().get(token)
        if found is None:
            raise UserError(
                f"tokenizer: expected the token {token} in it; add the media tokens first "
                "(mmdata.training_view.tokenizer.add_media_tokens)"
            )
        return int(found)

    def _find_prefix(self) -> list[int]:
        """What comes before a text's own ids when the tokenizer is called as it is."""
        plain = self.encode_text("a")
        whole: list[int] = self.tokenizer("a")["input_ids"]
        for start in range(len(whole) - len(plain) + 1):
            if whole[start : start + len(plain)] == plain:
                return whole[:start]
        return []


def _plain_copy(tokenizer: Any) -> Any | None:
    """A fast tokenizer's own engine, in which nothing is special or cut; None of a slow one.

    Twice as fast as asking transformers, whose every call sets the shared engine up anew. Its
    threads are left out unless the environment asks for them: for the few texts of a record they
    cost more than they bring.
    """
    engine = getattr(tokenizer, "backend_tokenizer", None)
    if engine is None:
        return None
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    plain = copy.deepcopy(engine)
    plain.no_truncation()
    plain.no_padding()
    plain.encode_special_tokens = True
    return plain


def interleaved_tokens(
    sentences: Sequence[str], places: Sequence[int], tokenizer: MediaTokenizer, max_tokens: int
) -> TokenSequence:
    """The ids of a document.

    Args:
        sentences: its texts.
        places: the sentence of each image, ascending.
        tokenizer: what makes ids.
        max_tokens: where the sequence is cut; images whose tag is beyond have none.
    """
    ids = list(tokenizer.prefix)
    for number, (first, last) in enumerate(pairwise([0, *sorted(set(places)), len(sentences)])):
        if len(ids) >= max_tokens:
            break
        if number:
            ids += [tokenizer.image_id] * list(places).count(first)
        room = max_tokens - len(ids)
        text = " ".join(sentences[first:last])
        ids += _first_ids(text.removeprefix(" ") if number else text, tokenizer, room)
        if number:  # what comes before the first picture is no chunk
            ids.append(tokenizer.endofchunk_id)
    ids = [*ids, tokenizer.eos_id][:max_tokens]
    return TokenSequence(ids, ids.count(tokenizer.image_id))


def _first_ids(text: str, tokenizer: MediaTokenizer, room: int) -> list[int]:
    """The ids of a text, at least so many of them where there are more.

    Most of a long text is beyond the cut, so no more of it is tokenised than a guess, up to a
    space, and where that was too little, a second with what the first has told. What the end of a
    part does to its last tokens (`_MARGIN_TOKENS`) is beyond the cut too.
    """
    wanted = room + _MARGIN_TOKENS
    end, chars = 0, _SPARE_SHARE * tokenizer.usual_chars * wanted
    while True:
        end = text.find(" ", max(end + 1, int(chars)))
        ids = tokenizer.encode_text(text if end < 0 else text[:end])
        if end < 0 or len(ids) >= wanted:
            return ids
        chars = _SPARE_SHARE * end / max(1, len(ids)) * wanted


def split_at_tags(sentences: Sequence[str], places: Sequence[int]) -> tuple[list[str], list[int]]:
    """Texts between tags, and the number of tags before each: the first has none."""
    starts = sorted(set(places))
    bounds = [0, *starts, len(sentences)]
    tags = [0, *(list(places).count(start) for start in starts)]
    texts = [" ".join(sentences[first:last]) for first, last in pairwise(bounds)]
    return [texts[0], *(text.removeprefix(" ") for text in texts[1:])], tags


def caption_tokens(caption: str, tokenizer: MediaTokenizer, max_tokens: int) -> TokenSequence:
    """`<image>caption<|endofchunk|>{end}`; a long caption is cut, never what closes it."""
    head = [*tokenizer.prefix, tokenizer.image_id]
    tail = [tokenizer.endofchunk_id, tokenizer.eos_id]
    room = max(0, max_tokens - len(head) - len(tail))
    text = tokenizer.encode_text(caption.strip())[:room]
    return TokenSequence([*head, *text, *tail], 1)
