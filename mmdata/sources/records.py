"""Files of JSON lines, plain or compressed: segments that can be read once from a start, records.

A *segment* is what can be read from a seekable start: a byte range of a plain file, a member of a
zip, a whole .gz or .zst. A *record* is a line that is not blank, with a byte order mark at the
file's start and a carriage return at the line's end taken off. Lines end at LF only: U+2028 and
U+0085 are text. A line longer than the limit is passed over in bounded memory.
"""

import gzip
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Literal, cast

from mmdata.errors import BadInputError, StorageError, words_of
from mmdata.sources.json_array import read_elements, read_range
from mmdata.sources.parquet_records import read_rows
from mmdata.storage.files import open_file, size_of
from mmdata.storage.urls import is_web

SUFFIXES = (".jsonl", ".jsonl.zip", ".jsonl.gz", ".jsonl.zst")
#: Plain files are cut into ranges of this size, so that a large one is read in parallel.
RANGE_BYTES = 64 * 2**20
_CHUNK_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"
#: Byte order marks of what is not UTF-8; the longer one first.
_OTHER_MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
#: Methods of compression in zips, by the names that tools show them with.
_ZIP_METHODS = {
    **{1: "shrink", 6: "implode", 9: "deflate64", 93: "zstd", 95: "xz", 96: "jpeg", 97: "wavpack"},
    **{98: "ppmd", 99: "AES"},
}
_ZIP_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_MAGIC = {".zip": b"PK", ".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of an input that one reader reads from start to end.

    Attributes:
        path: the input file.
        member: the member of a zip; empty otherwise.
        start: of a plain file, the byte where the range starts.
        end: of a plain file, the byte where it ends; lines that start before it belong to it.
        container: how records stand in it. Of an array, `end` None is the whole with its brackets;
            of parquet, `start` is the row group.
    """

    path: str
    member: str = ""
    start: int = 0
    end: int | None = None
    container: Literal["lines", "array", "parquet"] = "lines"

    @property
    def label(self) -> str:
        """The file, and its member where there is one."""
        return f"{self.path}:{self.member}" if self.member else self.path


@dataclass(frozen=True, slots=True)
class Overlong:
    """A record that is longer than the limit; its bytes were not kept."""

    num_bytes: int


def size_and_head(path: str) -> tuple[int, bytes]:
    """Bytes of an input, and the first four of them, which tell what it is.

    Raises:
        BadInputError: it cannot be read.
    """
    try:
        size = size_of(path)
        with open_file(path) as file:
            return size, file.read(4)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror or error}") from error


def refuse_other_unicode(head: bytes, label: str) -> None:
    """Raise BadInputError where the first bytes of a text are not those of UTF-8.

    Without a byte order mark, UTF-16 is told by the zero bytes beside its first two characters.
    """
    name = next((name for mark, name in _OTHER_MARKS if head.startswith(mark)), "")
    zeros = [byte == 0 for byte in head[:4]]
    if not name and zeros in ([False, True] * 2, [True, False] * 2):
        name = "UTF-16BE" if zeros[0] else "UTF-16LE"
    if name:
        raise BadInputError(
            f"{label}: is {name}; make it UTF-8 (iconv -f {name} -t UTF-8 does)",
            short=f"is {name}, not UTF-8",
        )


def list_segments(path: str, members: tuple[str, ...] = (".jsonl",)) -> list[Segment]:
    """The segments of an input of JSON lines, by its ending and first bytes.

    Args:
        path: of the input.
        members: endings of the members of a zip that are read.

    Raises:
        BadInputError: the file is empty, damaged, holds no such member, or is not what its name
            says.
    """
    suffix = os.path.splitext(path)[1].lower()
    size, head = size_and_head(path)
    if suffix in _MAGIC and size == 0:
        raise BadInputError(f"{path}: the file is empty; fetch it again")
    magic = _MAGIC.get(suffix)
    if magic and not head.startswith(magic):
        hint = "; it looks like plain JSON: name it .jsonl" if head[:1] in (b"{", b"[") else ""
        raise BadInputError(f"{path}: is not a {suffix} file{hint}")
    if suffix == ".zip":
        return _zip_segments(path, members)
    if suffix in (".gz", ".zst"):
        return [Segment(path)]
    refuse_other_unicode(head, path)
    if any(head.startswith(known) for known in _MAGIC.values()):
        raise BadInputError(f"{path}: is compressed: name it .jsonl.zip, .jsonl.gz or .jsonl.zst")
    if is_web(path):
        return [Segment(path, "", 0, size)]  # each range would be a download of the whole
    starts = range(0, max(size, 1), RANGE_BYTES)
    return [Segment(path, "", start, min(start + RANGE_BYTES, size)) for start in starts]


def _zip_segments(path: str, endings: tuple[str, ...]) -> list[Segment]:
    """The wanted members of a zip, without the folders and junk that some systems add."""
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise BadInputError(f"{path}: damaged zip: {words_of(error)}; fetch it again") from error
    if not members:
        raise BadInputError(f"{path}: the zip is empty")
    wanted = [info for info in members if _is_wanted(info.filename, endings)]
    if not wanted:
        names = ", ".join(info.filename for info in members[:3])
        raise BadInputError(
            f"{path}: no {' or '.join(endings)} member in the zip (it holds {names})"
        )
    if any(info.flag_bits & 1 for info in wanted):
        raise BadInputError(f"{path}: the zip is encrypted")
    for info in wanted:
        if info.compress_type not in _ZIP_READABLE:
            method = _ZIP_METHODS.get(info.compress_type, "unknown")
            raise BadInputError(
                f"{path}:{info.filename}: is compressed with {method} (method "
                f"{info.compress_type}), which is not read here; unpack it, and pack it again with "
                "deflate or as .jsonl.gz"
            )
    if len({info.filename for info in wanted}) < len(wanted):
        raise BadInputError(f"{path}: two members of the zip have one name")
    return [Segment(path, info.filename) for info in wanted]


def _is_wanted(name: str, endings: tuple[str, ...]) -> bool:
    folder, _, base = name.rpartition("/")
    return base.endswith(endings) and not base.startswith(".") and "__MACOSX" not in folder


@contextmanager
def open_segment(segment: Segment) -> Iterator[BinaryIO]:
    """The decompressed bytes of the file or member that a segment is of.

    Raises:
        BadInputError: it turns out to be damaged (CRC, truncated stream), also in the body.
    """
    try:
        with _open(segment) as file:
            yield file
    except StorageError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise BadInputError(
            f"{segment.label}: damaged: {words_of(error)}; fetch it again"
        ) from error
    except (NotImplementedError, RuntimeError) as error:
        raise BadInputError(
            f"{segment.label}: cannot be decompressed: {words_of(error)}"
        ) from error
    except OSError as error:
        kind = "damaged" if segment.path.endswith((".gz", ".zst")) else "cannot be read"
        raise BadInputError(f"{segment.label}: {kind}: {words_of(error)}") from error


@contextmanager
def _open(segment: Segment) -> Iterator[BinaryIO]:
    suffix = os.path.splitext(segment.path)[1].lower()
    with open_file(segment.path) as raw:
        if segment.member:
            with zipfile.ZipFile(raw) as archive, archive.open(segment.member) as file:
                yield cast(BinaryIO, file)
        elif suffix == ".gz":
            with gzip.GzipFile(fileobj=raw) as unzipped:
                yield cast(BinaryIO, unzipped)
        elif suffix == ".zst":
            yield cast(BinaryIO, _ZstdReader(raw))
        else:
            yield raw


class _ZstdReader:
    """Frames of a .zst file one after the other; an incomplete last frame is an error."""

    def __init__(self, raw: BinaryIO) -> None:
        import pyarrow

        self._raw = raw
        self._stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(raw), "zstd")

    def read(self, size: int) -> bytes:
        return cast(bytes, self._stream.read(size))


def read_records(segment: Segment, max_record_bytes: int) -> Iterator[bytes | Overlong]:
    """The records of a segment, in order, as bytes of JSON.

    Args:
        segment: of an input.
        max_record_bytes: a longer record comes as `Overlong`, its size alone.

    Raises:
        BadInputError: the segment turns out to be damaged (CRC, truncated stream).
    """
    if segment.container == "parquet":
        records = read_rows(open_file(segment.path), segment.label, segment.start)
        for record in records:
            size = len(record)
            yield record if size <= max_record_bytes else Overlong(size)
        return
    with open_segment(segment) as file:
        if segment.container == "array":
            for element in _elements(file, segment, max_record_bytes):
                yield Overlong(element) if isinstance(element, int) else element
            return
        if segment.start:
            file.seek(segment.start - 1)
        for line in _lines(file, segment, max_record_bytes):
            if isinstance(line, Overlong):
                yield line
            elif line and not line.isspace():
                yield line[:-1] if line.endswith(b"\r") else line


def _elements(file: BinaryIO, segment: Segment, limit: int) -> Iterator[bytes | int]:
    """The elements of an array, or of a range of it."""
    if segment.end is None:
        return read_elements(file, segment.label, limit)
    return read_range(file, segment.label, segment.start, segment.end, limit)


def _lines(file: BinaryIO, segment: Segment, limit: int) -> Iterator[bytes | Overlong]:
    """Lines that start inside the segment, without their line feeds."""
    position = max(segment.start - 1, 0)  # of the line that is being gathered
    skip_first = segment.start > 0  # it belongs to the range before
    parts: list[bytes] = []
    length = 0
    while chunk := file.read(_CHUNK_BYTES):
        if not position and not length:
            refuse_other_unicode(chunk[:4], segment.label)
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            length += len(piece)
            if length <= limit:
                parts.append(piece)
            if skip_first:
                skip_first = False
            else:
                if segment.end is not None and position >= segment.end:
                    return
                yield _line(parts, length, limit, position)
            position += length + 1
            parts, length = [], 0
        length += len(rest)
        no_line_before = position + length if skip_first else position
        if segment.end is not None and no_line_before >= segment.end:
            return
        if length <= limit:
            parts.append(rest)
        else:
            parts = []
    outside = segment.end is not None and position >= segment.end
    if length and not skip_first and not outside:
        yield _line(parts, length, limit, position)


def _line(parts: list[bytes], length: int, limit: int, position: int) -> bytes | Overlong:
    if length > limit:
        return Overlong(length)
    line = parts[0] if len(parts) == 1 else b"".join(parts)
    return line[len(_BOM) :] if position == 0 and line.startswith(_BOM) else line
