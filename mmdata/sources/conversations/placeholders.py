"""Placeholders of images in the text of a turn: found, and taken out with the blanks they leave.

`<image>`, `<img>`, `<|image|>`, `<image_1>`, `<image1>`, `<|image_1|>`, `<image 1>` and
`<ImageHere>` are known, whatever their case; `--placeholder` adds others. In conversations they are
structure; in the text of any other source they are text and stay.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

_KNOWN = r"<\|?(?:image|img)(?:[_ ]?(\d{1,4}))?\|?>|<(?:ImageHere|image_placeholder)>"


@dataclass(frozen=True, slots=True)
class Tag:
    """A placeholder: the number that it names its image by, if any."""

    number: int | None = None


@lru_cache(maxsize=8)
def _pattern(others: tuple[str, ...]) -> re.Pattern[str]:
    known = [re.escape(other) for other in sorted(others, key=len, reverse=True)]
    return re.compile("|".join([*known, _KNOWN]), re.IGNORECASE)


def split_tags(text: str, others: tuple[str, ...] = ()) -> list[str | Tag]:
    """The pieces of a text: strings, none of them empty, and the tags between them.

    Args:
        text: of a turn.
        others: further placeholders, as they are written.
    """
    pieces: list[str | Tag] = []
    done = 0
    for match in _pattern(others).finditer(text):
        if match.start() > done:
            pieces.append(text[done : match.start()])
        pieces.append(Tag(int(match[1]) if match[1] else None))
        done = match.end()
    if done < len(text):
        pieces.append(text[done:])
    return pieces


def join_pieces(pieces: list[str]) -> str:
    """What is left of a text when the tags between its pieces are out.

    Between two pieces one line feed or one space stays where there was one.
    """
    text = pieces[0] if pieces else ""
    for piece in pieces[1:]:
        left, right = text.rstrip(" \t"), piece.lstrip(" \t")
        if left.endswith("\n") and right.startswith("\n"):
            right = right[1:]
        blank = (left, right) != (text, piece)
        ends = not left or not right or left.endswith("\n") or right.startswith("\n")
        text = left + (" " if blank and not ends else "") + right
    return text
