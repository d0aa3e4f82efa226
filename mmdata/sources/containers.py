"""What a file of records is, by looking: JSON lines, a JSON array, parquet; plain or compressed."""

from dataclasses import replace
from typing import Literal

from mmdata.errors import BadInputError
from mmdata.sources import parquet_records
from mmdata.sources.json_array import cut_ranges
from mmdata.sources.records import (
    RANGE_BYTES,
    Segment,
    list_segments,
    open_segment,
    refuse_other_unicode,
    size_and_head,
)
from mmdata.storage.files import open_file

_PLAIN = (".json", ".jsonl")
#: Endings of the files that a folder stands for.
SUFFIXES = (
    *_PLAIN,
    *(plain + packed for plain in _PLAIN for packed in (".zip", ".gz", ".zst")),
    ".parquet",
)
_LOOK_BYTES = 1 << 16
_BOM = b"\xef\xbb\xbf"


def find_segments(path: str) -> list[Segment]:
    """The segments of an input of records, whatever holds them.

    A plain array larger than 64 MiB is read through once here (200 MB/s), so that several workers
    can share it afterwards.

    Raises:
        BadInputError: the file is empty, damaged, or of no kind that holds records.
    """
    size, head = size_and_head(path)
    if not size:
        raise BadInputError(f"{path}: the file is empty; fetch it again")
    if head == parquet_records.MAGIC or path.lower().endswith(".parquet"):
        return _row_groups(path, head)
    segments = list_segments(path, members=_PLAIN)
    looked: list[Segment] = []
    for segment in segments:
        if segment.start == 0 and look(segment) == "array":
            looked += _array(segment, size)
            if segment.end is not None:  # plain: what follows are ranges of the same file
                break
        else:
            looked.append(segment)
    return looked


def look(segment: Segment) -> Literal["lines", "array"]:
    """What a file or member of JSON holds.

    Raises:
        BadInputError: neither lines of objects nor an array.
    """
    with open_segment(segment) as file:
        head = file.read(_LOOK_BYTES)
    refuse_other_unicode(head, segment.label)
    head = head.removeprefix(_BOM).lstrip()
    if head.startswith(b"["):
        return "array"
    if head.startswith(b"{") and _spans_lines(head):
        raise BadInputError(
            f"{segment.label}: is one JSON object over several lines; expected an array of records "
            "or one record a line (if they lie under a key, jq -c '.data[]' takes them out)"
        )
    if head and not head.startswith(b"{"):
        raise BadInputError(
            f"{segment.label}: expected an array of records, one record a line, or parquet, got "
            f"{head[:20].decode('utf-8', 'replace')!r} at its start"
        )
    return "lines"


def _spans_lines(head: bytes) -> bool:
    """Whether an object goes on in the next line, where JSON lines begin another."""
    first, _, rest = head.partition(b"\n")
    following = rest.lstrip()
    return not first.rstrip().endswith(b"}") and following[:1] in (b'"', b"}")


def _array(segment: Segment, size: int) -> list[Segment]:
    """A whole array, or ranges of a large plain one."""
    whole = replace(segment, start=0, end=None, container="array")
    if segment.end is None or size <= RANGE_BYTES:
        return [whole]
    with open_segment(whole) as file:
        ranges = cut_ranges(file, segment.label, RANGE_BYTES)
    return [replace(whole, start=start, end=end) for start, end in ranges]


def _row_groups(path: str, head: bytes) -> list[Segment]:
    if head != parquet_records.MAGIC:
        raise BadInputError(f"{path}: is not a parquet file")
    with open_file(path) as file:
        groups = parquet_records.count_row_groups(file, path)
    return [Segment(path, start=group, container="parquet") for group in range(groups)]
