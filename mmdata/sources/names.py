"""Which picture a name in a record means: one decision for folders, tars, parquet and stores.

The exact name comes first, then the same name as it may be spelled otherwise: with `.` and empty
parts, with backslashes, percent-encoded, as a `file:` URL. What is still not there is looked for
among the names that a store holds, as far as one of them can be meant and no other:

- it is equal but for spelling, Unicode normal form and the case of the extension;
- it lies deeper, so that the record's whole path is the end of its path: one step away;
- it has another extension of a picture: one step away.

The one with the fewest steps is taken, with a note that says how it was found. Two with equally
few are `ambiguous-name`: nobody can know which is meant. A name that leads out of the image folder
is `unsafe-path`, however it is spelled.
"""

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import unquote

from mmdata.images import ImageRejected
from schemas.reasons import ImageDrop, ImageNote

#: Endings of picture files, those included that no decoder here reads: they share a stem as well.
PICTURE_ENDINGS = frozenset(
    f".{ending}"
    for ending in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff"),
        *("avif", "heic", "heif", "jxl", "jp2", "ico", "tga", "ppm", "pgm"),
    )
)
_NAME_MAX_BYTES = 255
_SHOWN_CHARACTERS = 200
_ODD = re.compile(r"[\\%\0]|(?:^|/)\.{0,2}(?:/|$)|^[A-Za-z]:|^file:", re.IGNORECASE)
_FILE = re.compile(r"file:(?://(?:localhost(?=/))?)?", re.IGNORECASE)
_DRIVE = re.compile(r"/?([A-Za-z]:)(?:/|$)")

Value = TypeVar("Value")


class Near(NamedTuple):
    """A name in a store that a record's name may mean, and how many steps it is away."""

    name: str
    steps: int


class StoredImage(NamedTuple):
    """A picture that was found.

    Attributes:
        data: the encoded file.
        name: in its store; the record's own where nothing else had to be tried.
        note: how it was found; None where it is there under the very name.
    """

    data: bytes
    name: str
    note: ImageNote | None = None


class NamedImages(ABC):
    """Where pictures are. What a store says of exact and of near names is decided on here alone."""

    @abstractmethod
    def take(self, name: str) -> bytes | None:
        """The picture of exactly this (safe) name; None where it is not there."""

    @abstractmethod
    def length(self, name: str) -> int | None:
        """Bytes of the picture of exactly this (safe) name; None where it is not there."""

    @abstractmethod
    def near(self, name: str) -> list[Near]:
        """The names that one may mean which is not there; the nearest are enough."""

    @abstractmethod
    def where(self) -> str:
        """What is looked in, for a person."""

    def nowhere(self) -> str:
        """What is said of a picture that is not there."""
        return "no such file"

    @property
    def by_url(self) -> bool:
        """Whether a URL helps to find an image."""
        return False

    def take_url(self, url: str) -> bytes | None:
        """The picture that came from a URL; None where that is not known."""
        return None

    def length_url(self, url: str) -> int | None:
        """Bytes of the picture that came from a URL; None where that is not known."""
        return None

    def read(self, name: str, url: str = "") -> StoredImage:
        """The picture that a record's name, or the URL that it came from, stands for.

        Args:
            name: as the record has it.
            url: where the picture came from; empty where that is not known.

        Raises:
            ImageRejected: missing, ambiguous-name, unsafe-path, too-large or unreadable.
        """
        return StoredImage(*_resolve(self, name, url, self.take, self.take_url))

    def size(self, name: str, url: str = "") -> int | None:
        """Bytes of a picture; None when there is none to read, 0 where several may be meant.

        Args:
            name: as the record has it.
            url: where the picture came from; empty where that is not known.
        """
        try:
            return _resolve(self, name, url, self.length, self.length_url)[0]
        except ImageRejected as rejected:
            return 0 if rejected.reason == ImageDrop.AMBIGUOUS_NAME else None


def _resolve(
    store: NamedImages,
    name: str,
    url: str,
    take: Callable[[str], Value | None],
    take_url: Callable[[str], Value | None],
) -> tuple[Value, str, ImageNote | None]:
    """What stands for a record's image: (value, its name in the store, how it was found)."""
    if _is_plain(name):  # most are: nothing is said of them that a look at the store does not
        forms, problem = [name], ""
    else:
        forms, problem = spellings(name)
    if url and not problem and (value := take_url(url)) is not None:
        return value, name, None
    for form in forms:
        if (value := take(form)) is not None:
            return value, form, note_for(name, form)
    if problem:
        raise ImageRejected(ImageDrop.UNSAFE_PATH, f"{shown(name)}: {problem}")
    found = "" if _is_web(name) else _nearest(name, store.near(name))
    if found and (value := take(found)) is not None:
        return value, found, note_for(name, found)
    raise ImageRejected(ImageDrop.MISSING, f"{shown(name)}: {store.nowhere()}")


def _nearest(name: str, candidates: Sequence[Near]) -> str:
    """The one name that can be meant; empty where none is near.

    Raises:
        ImageRejected: several are equally near.
    """
    if not candidates:
        return ""
    least = min(candidate.steps for candidate in candidates)
    names = sorted({candidate.name for candidate in candidates if candidate.steps == least})
    if len(names) > 1:
        raise ambiguous(name, f"may be {shown(names[0])} or {shown(names[1])}")
    return names[0]


def ambiguous(name: str, why: str) -> ImageRejected:
    """A name that may mean several pictures."""
    return ImageRejected(ImageDrop.AMBIGUOUS_NAME, f"{shown(name)}: {why}")


def one_of(name: str, candidates: Iterable[bytes]) -> bytes:
    """The picture that there is more than once under exactly one name.

    Raises:
        ImageRejected: ambiguous-name, where they are not all the same.
    """
    first, *others = candidates
    if any(other != first for other in others):
        raise ambiguous(name, f"{len(others) + 1} different pictures have this name")
    return first


def shown(name: str) -> str:
    """A name as it may stand in a message: never a payload that somebody took for a name."""
    if len(name) <= _SHOWN_CHARACTERS:
        return name
    return f"{name[: _SHOWN_CHARACTERS // 4]}… ({len(name)} characters)"


def spellings(name: str) -> tuple[list[str], str]:
    """The names inside an image folder that a name may be written for, and what is wrong with it.

    Returns:
        Safe names, the plainest reading first, and why the name leads out of the folder (in one of
        its readings), or an empty text.

    Raises:
        ImageRejected: missing, for what can name no file.
    """
    if not name:
        raise ImageRejected(ImageDrop.MISSING, "expected an image name, got nothing")
    if not _ODD.search(name):
        texts = [name]
    else:
        texts = [form for text in _without_scheme(name) for form in _readings(text)]
    forms: dict[str, None] = {}
    problem = ""
    for text in texts:
        if what := _problem(text):
            read = f" (read as {shown(text)})" if text != name else ""
            problem = problem or what + read
        elif (form := _plain(text)) and not _is_too_long(form):
            forms[form] = None
    if not forms and not problem:
        raise ImageRejected(ImageDrop.MISSING, f"{shown(name)}: too long to name a file")
    return [*forms], problem


def check_name(name: str) -> None:
    """Refuse a name that is not plainly one inside the image folder, as what is written must be.

    Raises:
        ImageRejected: unsafe-path, or missing for a name of no file.
    """
    forms, problem = spellings(name)
    if problem or forms != [name]:
        problem = problem or f"expected a plain name such as {shown(forms[-1])}"
        raise ImageRejected(ImageDrop.UNSAFE_PATH, f"{shown(name)}: {problem}")


def canonical(name: str) -> str:
    """A name in the one spelling in which equal names are equal; its ending stays as it is."""
    if _ODD.search(name):
        for step, _ in _STEPS:
            name = step(name)
        return name
    return name if name.isascii() else _composed(name)


def unicode_forms(name: str) -> list[str]:
    """A name composed (NFC), as most write it, and decomposed (NFD), as macOS does."""
    if name.isascii():
        return [name]
    return [*dict.fromkeys((_composed(name), unicodedata.normalize("NFD", name)))]


def split_ending(name: str) -> tuple[str, str]:
    """What comes before the ending of a picture, and the ending in lower case.

    Another ending is a part of the stem, since a dot may stand in any name.
    """
    dot = name.rfind(".")
    if dot <= name.rfind("/") + 1:
        return name, ""
    ending = name[dot:].lower()
    return (name[:dot], ending) if ending in PICTURE_ENDINGS else (name[:dot] + ending, "")


def note_for(wanted: str, found: str) -> ImageNote | None:
    """How a picture was found under another name than the record's: the last step that it took."""
    first, second = wanted, found
    if first == second:
        return None
    for step, note in _STEPS:
        first, second = step(first), step(second)
        if first == second:
            return note
    (first, ending), (second, other) = split_ending(first), split_ending(second)
    if ending != other:
        return ImageNote.FOUND_BY_OTHER_EXTENSION
    return ImageNote.FOUND_BY_SUFFIX if first != second else ImageNote.FOUND_BY_EXTENSION_CASE


def is_junk(name: str) -> bool:
    """Whether a name is what macOS and editors leave beside files: `._1.jpg`, `__MACOSX/`."""
    return any(part.startswith("._") or part == "__MACOSX" for part in name.split("/"))


def decoded_path(name: str) -> str | None:
    """The path in a `file:` URL; None of any other name."""
    path = _path(name)
    return None if path is None else _decoded(path)


def _path(name: str) -> str | None:
    """What is behind `file:`, percent-encoded as it came."""
    match = _FILE.match(name)
    return name[match.end() :] if match else None


def _without_scheme(name: str) -> list[str]:
    """A name, or the readings of the path in a `file:` URL."""
    path = _path(name)
    return [name] if path is None else [_decoded(path), path]


def _readings(text: str) -> Iterable[str]:
    """A text as it stands, with slashes for backslashes, percent-decoded, and both."""
    slashed = _slashed(text)
    return dict.fromkeys((text, slashed, _decoded(text), _slashed(_decoded(slashed))))


def _problem(text: str) -> str:
    """Which part of a text leads out of the image folder; empty where none does."""
    if "\0" in text:
        return "it holds a NUL byte"
    if match := _DRIVE.match(text):
        return f'its part "{match[1]}" is a drive, not a place inside the image folder'
    if text.startswith("/"):
        return 'it begins with "/", which leads out of the image folder'
    parts = text.split("/")
    if ".." in parts:
        return f'its part "..", number {parts.index("..") + 1}, leads out of the image folder'
    return "" if any(part not in ("", ".") for part in parts) else "it names the folder itself"


def _is_plain(name: str) -> bool:
    return 0 < len(name) * 4 <= _NAME_MAX_BYTES and not _ODD.search(name)


def _is_too_long(name: str) -> bool:
    if len(name) * 4 <= _NAME_MAX_BYTES:
        return False
    return any(len(part.encode("utf-8", "replace")) > _NAME_MAX_BYTES for part in name.split("/"))


def _is_web(name: str) -> bool:
    return "://" in name[:12] and _path(name) is None


def _plain(name: str) -> str:
    """A name without `.` and empty parts."""
    if "//" not in name and "./" not in name and not name.startswith("/"):
        return name.removesuffix("/.").rstrip("/") if name.endswith(("/", "/.")) else name
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _local(name: str) -> str:
    path = _path(name)
    return name if path is None else _plain(_slashed(_decoded(path)))


def _slashed(name: str) -> str:
    return name.replace("\\", "/")


def _decoded(name: str) -> str:
    """Percent-decoded, where that gives text."""
    if "%" not in name:
        return name
    try:
        return unquote(name, errors="strict")
    except UnicodeDecodeError:
        return name


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


#: What makes two spellings of a name equal, in the order in which it is tried.
_STEPS: tuple[tuple[Callable[[str], str], ImageNote], ...] = (
    (_local, ImageNote.FOUND_BY_FILE_URL),
    (_plain, ImageNote.FOUND_BY_DOT_PARTS),
    (lambda name: _plain(_slashed(name)), ImageNote.FOUND_BY_BACKSLASH),
    (lambda name: _plain(_slashed(_decoded(name))), ImageNote.FOUND_BY_PERCENT_ENCODING),
    (_composed, ImageNote.FOUND_BY_UNICODE_FORM),
)
