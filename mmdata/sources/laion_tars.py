"""img2dataset's webdataset output as a list of images: `{key}.jpg`, `.txt`, `.json` in tars.

Also our own shards of layout `pairs`. The images are in it, so nothing is fetched.
"""

from collections.abc import Iterator
from typing import Any

from mmdata.errors import BadInputError
from mmdata.shards.reader import Sample, ShardReader, dots_hint
from mmdata.sources.base import RecordDropped
from mmdata.sources.laion_columns import ColumnNames, find_columns
from mmdata.sources.laion_rows import LaionRow
from mmdata.sources.records import Segment
from mmdata.sources.strict_json import decode_object
from mmdata.sources.tar_images import IMAGE_SUFFIXES
from schemas.reasons import DocumentDrop

_CAPTION = "caption"


def tar_segments(path: str) -> list[Segment]:
    """The tar as one segment.

    Raises:
        BadInputError: damaged, or none of its samples holds an image.
    """
    with ShardReader(path) as reader:
        samples = len(reader)
        if samples and not any(_pictures(reader.read(key)) for key in reader.keys):
            hint = dots_hint(kind for sample in reader for kind in sample.members)
            raise BadInputError(
                f"{path}: no sample in it has an image of its own; expected img2dataset's tars "
                f"or shards of layout pairs{hint}"
            )
    return [Segment(path)]


def tar_rows(segment: Segment, names: ColumnNames) -> Iterator[LaionRow | RecordDropped]:
    """The rows of a tar, one a sample, in order; a drop in place of one that cannot be read.

    Raises:
        BadInputError: damaged.
    """
    with ShardReader(segment.path) as reader:
        for sample in reader:
            try:
                yield _row(sample, names, segment.path)
            except RecordDropped as dropped:
                yield dropped


def _row(sample: Sample, names: ColumnNames, path: str) -> LaionRow:
    hint = dots_hint(sample.members)
    pictures = _pictures(sample)
    if hint and not {"json", "txt"} & sample.members.keys() and not pictures:
        got = ", ".join(sorted(sample.members))
        detail = f"{sample.key}: expected a picture and its text, got {got}{hint}"
        raise RecordDropped(DocumentDrop.NOT_A_SAMPLE, detail)
    if len(pictures) > 1:
        detail = f"{sample.key}: expected one picture, got {' and '.join(pictures)}"
        raise RecordDropped(
            DocumentDrop.NOT_A_SAMPLE, f"{detail}; take out what the text is not about"
        )
    values: dict[str, Any] = {}
    if "json" in sample.members:
        values |= decode_object(bytes(sample.members["json"]))
    if "txt" in sample.members and names.caption is None:
        values[_CAPTION] = bytes(sample.members["txt"])
    values.setdefault(_CAPTION, None)
    wanted = ColumnNames(
        url=names.url, caption=names.caption or _CAPTION, similarity=names.similarity
    )
    columns = find_columns(list(values), wanted, path, "")
    image = next(iter(pictures.values()), None)
    return LaionRow(values, columns, None if image is None else bytes(image), has_image=True)


def _pictures(sample: Sample) -> dict[str, memoryview]:
    """The pictures of a sample by their extension."""
    return {kind: data for kind, data in sample.members.items() if f".{kind}" in IMAGE_SUFFIXES}
