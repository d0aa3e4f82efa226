"""One row of a list of images, whatever file it stood in, as a document of one text, one image.

Values come as Python's, or as raw JSON where the file is JSON. What a pair needs is typed here;
every other column is carried along. The filters on columns apply before anything is fetched.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import numpy as np

from mmdata.sources.base import RecordDropped, SourceDocument, SourceImage
from mmdata.sources.fields import as_raw
from mmdata.sources.laion_columns import Columns
from schemas.document import FORMAT_VERSION
from schemas.reasons import DocumentDrop, DocumentNote

#: Names that a document gives its own values, and those of which it promises a type.
_OWN = frozenset(
    (
        *("format_version", "text_list", "image_info", "similarity_matrix", "similarity_source"),
        *("alignment", "roles"),
    )
)
_TYPED: dict[str, type] = {"url": str, "could_have_url_duplicate": int}
#: Equal to the value of no column.
_NO_COLUMN = object()
#: Where the other captions of a picture stand, if its row has a list of them.
OTHER_CAPTIONS = "other_captions"
#: Cosines of float32 vectors leave [-1, 1] by rounding only.
_COSINE_BOUND = 1.0 + 1e-4
#: Where nothing says how similar picture and text are: given as a pair, taken as a pair.
PLACEHOLDER = 1.0


@dataclass(slots=True)
class LaionRow:
    """A row as its file has it.

    Attributes:
        values: by column.
        columns: which of them is what.
        image: the encoded image, where the input holds it.
        has_image: whether the input is one that holds images; then nothing is fetched.
    """

    values: dict[str, Any]
    columns: Columns
    image: bytes | None = None
    has_image: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFilters:
    """What a row must say of itself; a row that says nothing does not pass the first four.

    Attributes:
        min_caption_similarity: least similarity.
        max_punsafe: greatest probability of being unsafe.
        max_pwatermark: greatest probability of a watermark.
        nsfw: values of the NSFW column that pass, in lower case; empty lets all pass.
        min_size: least px of the shorter side, where the row says its size.
        max_aspect: most times that the long side may be the short one; 0: no limit.
    """

    min_caption_similarity: float | None = None
    max_punsafe: float | None = None
    max_pwatermark: float | None = None
    nsfw: tuple[str, ...] = ()
    min_size: int = 0
    max_aspect: float = 0.0

    def missing(self, columns: Columns) -> str:
        """The first option whose column an input lacks; empty if none."""
        wanted = (
            ("--min-caption-similarity", self.min_caption_similarity is not None, "similarity"),
            ("--max-punsafe", self.max_punsafe is not None, "punsafe"),
            ("--max-pwatermark", self.max_pwatermark is not None, "pwatermark"),
            ("--nsfw", bool(self.nsfw), "nsfw"),
            ("--min-size", self.min_size > 0, "width"),
        )
        for option, asked, column in wanted:
            if asked and not getattr(columns, column):
                return f"{option}: there is no column {column}"
        return ""


@dataclass(slots=True)
class PairSource:
    """A row that passed.

    Attributes:
        document: with `given` alignment; its similarity is the row's, or the placeholder.
        url: to fetch; empty where there is none.
    """

    document: SourceDocument
    url: str
    row: LaionRow = field(repr=False)


def parse_row(row: LaionRow) -> PairSource:
    """A row as a document.

    Raises:
        RecordDropped: it lacks what a pair needs.
    """
    values, columns = row.values, row.columns
    caption, others = _caption(values.get(columns.caption), columns.caption)
    if not caption.strip():
        raise RecordDropped(DocumentDrop.NO_TEXT, f"{columns.caption}: expected a caption")
    url = _text(values.get(columns.url), columns.url).strip() if columns.url else ""
    if not url and not row.has_image:
        raise RecordDropped(DocumentDrop.NO_URL, f"{columns.url}: expected a URL, got nothing")
    similarity, notes = _similarity(row)
    used = columns.used
    extras = {name: as_raw(value) for name, value in values.items() if name not in used}
    if others:
        extras.setdefault(OTHER_CAPTIONS, msgspec.Raw(msgspec.json.encode(others)))
        detail = f"{columns.caption}: the first of {len(others) + 1}"
        notes.append((DocumentNote.SEVERAL_CAPTIONS.value, detail))
    known = similarity is not None
    image = SourceImage(_name(url), {"raw_url": msgspec.Raw(msgspec.json.encode(url))})
    document = SourceDocument(
        text_list=[caption],
        images=[image],
        similarity=np.array([[similarity if known else PLACEHOLDER]], dtype=np.float64),
        similarity_source="laion" if known else "placeholder",
        alignment="given",
        extras=extras,
        matched=[0],
        notes=notes,
    )
    return PairSource(document, url, row)


def check_filters(row: LaionRow, filters: RowFilters) -> None:
    """Hold a row against the filters.

    Raises:
        RecordDropped: it does not pass one, or lacks the column that the filter needs.
    """
    columns = row.columns
    limits = (
        (
            DocumentDrop.LOW_CAPTION_SIMILARITY,
            columns.similarity,
            filters.min_caption_similarity,
            1,
        ),
        (DocumentDrop.UNSAFE, columns.punsafe, filters.max_punsafe, -1),
        (DocumentDrop.WATERMARK, columns.pwatermark, filters.max_pwatermark, -1),
    )
    for reason, column, limit, sign in limits:
        if limit is None:
            continue
        value = number_of(row.values.get(column))
        if value is None or sign * (value - limit) < 0:
            bound = f"at {'least' if sign > 0 else 'most'} {limit:g}"
            raise RecordDropped(reason, f"{column or 'column'}: expected {bound}, got {value}")
    if filters.nsfw:
        mark = plain(row.values.get(columns.nsfw))
        if not isinstance(mark, str) or mark.strip().lower() not in filters.nsfw:
            allowed = ", ".join(filters.nsfw)
            detail = f"{columns.nsfw}: expected {allowed}, got {str(mark)[:40]!r}"
            raise RecordDropped(DocumentDrop.NSFW, detail)
    _check_size(row, filters)


def _check_size(row: LaionRow, filters: RowFilters) -> None:
    """By the size that a row lists; one that lists none is judged by its image."""
    width = number_of(row.values.get(row.columns.width))
    height = number_of(row.values.get(row.columns.height))
    if width is None or height is None or width <= 0 or height <= 0:
        return
    size = f"{width:g} x {height:g}"
    if min(width, height) < filters.min_size:
        detail = f"{size}: expected at least {filters.min_size} px"
        raise RecordDropped(DocumentDrop.LISTED_TOO_SMALL, detail)
    if filters.max_aspect and max(width, height) > filters.max_aspect * min(width, height):
        detail = f"{size}: expected at most {filters.max_aspect:g} : 1"
        raise RecordDropped(DocumentDrop.LISTED_BAD_ASPECT, detail)


def plain(value: Any) -> Any:
    """A value as Python's, where it is raw JSON."""
    return msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value


def number_of(value: Any) -> float | None:
    """A finite number, also one written as text; None for anything else."""
    value = plain(value)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _caption(value: Any, column: str) -> tuple[str, list[str]]:
    """The caption of a row and, of a list of captions, those behind the first that says something.

    Raises:
        RecordDropped: it is neither text nor a list of text.
    """
    value = plain(value)
    if not isinstance(value, list):
        return _text(value, column), []
    texts = [_text(item, f"{column}[{place}]") for place, item in enumerate(value)]
    texts = [text for text in texts if text.strip()]
    return (texts[0], texts[1:]) if texts else ("", [])


def _text(value: Any, column: str) -> str:
    """A column that has to be text; empty for null."""
    value = plain(value)
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            detail = f"{column}: byte 0x{value[error.start]:02x} at {error.start} is not UTF-8"
            raise RecordDropped(DocumentDrop.NOT_UTF8, detail) from None
    if not isinstance(value, str):
        detail = f"{column}: expected text, got {type(value).__name__}"
        raise RecordDropped(DocumentDrop.BAD_SCHEMA, detail)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise RecordDropped(DocumentDrop.NOT_UTF8, f"{column}: not UTF-8") from None
    return value


def _similarity(row: LaionRow) -> tuple[float | None, list[tuple[str, str]]]:
    """The row's own similarity, and a note where it has one that is none."""
    column = row.columns.similarity
    value = plain(row.values.get(column)) if column else None
    if value is None:
        return None, []
    number = number_of(value)
    if number is None or abs(number) > _COSINE_BOUND:
        detail = f"{column}: expected a cosine, got {str(value)[:40]!r}; 1.0 stands for it"
        return None, [(DocumentNote.BAD_SIMILARITY.value, detail)]
    return number, []


def _name(url: str) -> str:
    """The last part of a URL's path; a name for people, never a path."""
    try:
        path = urlsplit(url).path
    except ValueError:
        return ""
    return unquote(path.rpartition("/")[2], errors="replace")[:200].replace("\0", "")


def carried(extras: Mapping[str, msgspec.Raw], said: Mapping[str, Any]) -> dict[str, msgspec.Raw]:
    """Columns under names that leave a sample's own fields alone.

    A column that has the name of such a field goes under `source_NAME`, unless it says what the
    sample says there, or nothing.

    Args:
        extras: columns by name, as raw JSON.
        said: what the sample says under its own names.
    """
    found: dict[str, msgspec.Raw] = {}
    for name, raw in extras.items():
        new = name
        if name in said:
            value = plain(raw)
            if value is None or _is_same(value, said[name]):
                continue
            while new in extras or new in said or new in found:
                new = f"source_{new}"
        found[new] = raw
    return found


def _is_same(value: Any, said: Any) -> bool:
    """Whether a column says what the sample says; text tables have numbers as text."""
    if isinstance(said, int | float):
        return number_of(value) == said
    return bool(value == said)


def document_extras(document: SourceDocument) -> dict[str, msgspec.Raw]:
    """The columns of a row under names that are free in an interleaved document."""
    said: dict[str, Any] = dict.fromkeys(_OWN, _NO_COLUMN)
    said |= {
        "format_version": FORMAT_VERSION,
        "text_list": document.text_list,
        "similarity_source": document.similarity_source,
        "alignment": document.alignment,
    }
    for name, kind in _TYPED.items():
        if name in document.extras and not _may_stand(document.extras[name], kind):
            said[name] = _NO_COLUMN
    return carried(document.extras, said)


def _may_stand(raw: msgspec.Raw, kind: type) -> bool:
    value = msgspec.json.decode(raw)
    return value is None or (isinstance(value, kind) and not isinstance(value, bool))
