"""Placeholders of images in the text of a turn: found, and taken out with the blanks they leave.

`<image>`, `<img>`, `<|image|>`, `<image_1>`, `<image1>`, `<|image_1|>`, `<image 1>` and
`<ImageHere>` are known, whatever their case; `--placeholder` adds others. `<img>dogs/a.jpg</img>`
is one that says itself which image it is. In conversations they are structure; in the text of any
other source they are text and stay.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from mmdata.sources.embedded import is_bare_base64, is_data_uri
from mmdata.sources.names import split_ending

_NAMED = r"<(?P<tag>img|image)>(?P<name>[^<>]*)</(?P=tag)>"
_KNOWN = r"<\|?(?:image|img)(?:[_ ]?(?P<number>\d{1,4}))?\|?>|<(?:ImageHere|image_placeholder)>"


@dataclass(frozen=True, slots=True)
class Tag:
    """A placeholder, or a part of a turn that says no more than that there is an image.

    Attributes:
        number: that it names its image by, if any.
        words: as it is written in the text; empty of a part.
        name: of the image that it is, where it says so itself.
        pointed: whether the number counts from 0 in the record's list of images.
        problem: of a part: why it is an image that is dropped, where the list has none for it.
        unsure: whether a part holds something that may have said which image it is.
    """

    number: int | None = None
    words: str = field(default="", compare=False)
    name: str = ""
    pointed: bool = False
    problem: str = field(default="", compare=False)
    unsure: bool = field(default=False, compare=False)


@lru_cache(maxsize=8)
def _pattern(others: tuple[str, ...]) -> re.Pattern[str]:
    known = [re.escape(other) for other in sorted(others, key=len, reverse=True)]
    return re.compile("|".join([*known, _NAMED, _KNOWN]), re.IGNORECASE)


def split_tags(text: str, others: tuple[str, ...] = ()) -> list[str | Tag]:
    """The pieces of a text: strings, none of them empty, and the tags between them.

    Args:
        text: of a turn.
        others: further placeholders, as they are written.
    """
    pieces: list[str | Tag] = []
    done = 0
    for match in _matches(text, others):
        if match.start() > done:
            pieces.append(text[done : match.start()])
        pieces.append(_tag(match))
        done = match.end()
    if done < len(text):
        pieces.append(text[done:])
    return pieces


def _matches(text: str, others: tuple[str, ...]) -> Iterator[re.Match[str]]:
    """The placeholders of a text; of `<img> What is it? </img>` the first half is one."""
    pattern, at = _pattern(others), 0
    while match := pattern.search(text, at):
        if match["name"] is not None and match["name"].strip() and not _is_image(match["name"]):
            match = pattern.search(text, match.start(), match.start("name"))
            if match is None:
                return
        yield match
        at = match.end()


def _tag(match: re.Match[str]) -> Tag:
    name = (match["name"] or "").strip()
    number = match["number"]
    return Tag(int(number) if number else None, match[0], name)


def _is_image(text: str) -> bool:
    """Whether what stands between `<img>` and `</img>` says which image it is, as words do not."""
    name = text.strip()
    if is_data_uri(name) or is_bare_base64(name):
        return True
    if "\n" in name:
        return False
    blank = any(letter.isspace() for letter in name)
    return bool(split_ending(name)[1]) or "://" in name or ("/" in name and not blank)


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
