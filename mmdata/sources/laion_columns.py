"""Which column of a list of images is what, by the names that people give them."""

from collections.abc import Collection
from dataclasses import dataclass

from mmdata.errors import BadInputError
from mmdata.sources.fields import nearest

URL_NAMES = ("URL", "url", "image_url", "img_url", "SAMPLE_URL")
CAPTION_NAMES = ("TEXT", "text", "caption", "Caption", "alt_text", "txt", "captions")
SIMILARITY_NAMES = ("similarity", "SIMILARITY")
IMAGE_NAMES = ("bytes", "image", "jpg", "png", "webp", "image_bytes")
PUNSAFE_NAMES = ("punsafe", "p_unsafe")
PWATERMARK_NAMES = ("pwatermark", "p_watermark")
NSFW_NAMES = ("NSFW", "nsfw")
WIDTH_NAMES = ("WIDTH", "width", "original_width")
HEIGHT_NAMES = ("HEIGHT", "height", "original_height")


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnNames:
    """Columns as the user named them; None: found by looking."""

    url: str | None = None
    caption: str | None = None
    similarity: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of one input; empty where it has none."""

    url: str = ""
    caption: str = ""
    similarity: str = ""
    image: str = ""
    punsafe: str = ""
    pwatermark: str = ""
    nsfw: str = ""
    width: str = ""
    height: str = ""

    @property
    def used(self) -> frozenset[str]:
        """The columns that a pair has in fields of its own."""
        return frozenset((self.url, self.caption, self.image)) - {""}


def find_columns(
    there: Collection[str], names: ColumnNames, where: str, image: str | None = None
) -> Columns:
    """The columns of an input.

    Args:
        there: names of its columns.
        names: as the user named them.
        where: file, for the message.
        image: its column of encoded images; "" where images come from elsewhere; None without.

    Raises:
        BadInputError: no captions, or neither URLs nor images.
    """
    url = _pick(there, names.url, URL_NAMES, "--url-col", where)
    caption = _pick(there, names.caption, CAPTION_NAMES, "--caption-col", where)
    similarity = _pick(there, names.similarity, SIMILARITY_NAMES, "--similarity-col", where)
    if not caption or not (url or image is not None):
        missing = "captions (--caption-col)" if not caption else "URLs (--url-col)"
        expected = CAPTION_NAMES if not caption else URL_NAMES
        raise BadInputError(
            f"{where}: no column of {missing}: expected {', '.join(expected)}, got "
            f"{', '.join(map(str, list(there)[:20])) or 'none'}"
        )
    return Columns(
        url=url,
        caption=caption,
        similarity=similarity,
        image=image or "",
        punsafe=_first(there, PUNSAFE_NAMES),
        pwatermark=_first(there, PWATERMARK_NAMES),
        nsfw=_first(there, NSFW_NAMES),
        width=_first(there, WIDTH_NAMES),
        height=_first(there, HEIGHT_NAMES),
    )


def _pick(
    there: Collection[str], wanted: str | None, known: tuple[str, ...], flag: str, where: str
) -> str:
    if wanted is None:
        return _first(there, known)
    if wanted not in there:
        got = ", ".join(map(str, list(there)[:20]))
        near = nearest(wanted, list(map(str, there)))
        meant = f"; did you mean {near}?" if near else ","
        raise BadInputError(f"{where}: no column {wanted!r} ({flag}){meant} got {got or 'none'}")
    return wanted


def _first(there: Collection[str], known: tuple[str, ...]) -> str:
    return next((name for name in known if name in there), "")
