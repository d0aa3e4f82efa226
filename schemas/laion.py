"""Records of image-text pairs: the JSON beside a picture, and how each download ended.

The `pairs` layout is img2dataset's (https://github.com/rom1504/img2dataset): `{key}.jpg`,
`{key}.txt`, `{key}.json`, with its column names in the JSON, so that readers of its shards read
ours. Columns of the source that have other names are carried along beside these.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from schemas.document import ImageFormat, Pixels, Sha256


class Pair(Struct, kw_only=True):
    """`{key}.json` of a shard of layout `pairs`."""

    format_version: Annotated[str, Meta(description="version of this table")]
    key: Annotated[str, Meta(description="of the sample")]
    caption: Annotated[str, Meta(description="the same as in `{key}.txt`")]
    url: Annotated[str | None, Meta(description="of the picture, as the source has it")]
    status: Annotated[str, Meta(description="`success`, as img2dataset says it")] = "success"
    error_message: str | None = None
    width: Pixels
    height: Pixels
    original_width: Annotated[int | None, Meta(description="null where it was encoded anew")]
    original_height: int | None
    format: ImageFormat
    sha256: Annotated[Sha256, Meta(description="of the picture's file")]
    similarity: Annotated[float, Meta(description="of picture and text; cosine, not x 100")]
    similarity_source: Annotated[
        str, Meta(description="laion, clip:<model>/<pretrained>, or placeholder (then 1.0)")
    ]


#: Columns of `000000000.outcomes.parquet`: name -> (type, meaning). One row a record.
OUTCOME_COLUMNS: dict[str, tuple[str, str]] = {
    "key": ("string", "sample key that the record has, or would have had"),
    "url": ("string", "as the source has it; empty without one"),
    "status": ("string", "how the download ended; `not-asked` where the record was dropped before"),
    "http_status": ("int32", "of the last response; null without one"),
    "bytes": ("int64", "of the body, unpacked; 0 unless ok"),
    "sha256": ("string", "of the body; empty unless ok"),
    "attempts": ("int32", "requests begun, redirects not counted"),
    "seconds": ("double", "from the first attempt to the end"),
    "result": ("string", "`kept`, or why there is no sample"),
    "detail": ("string", "one line for a person"),
}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of `Pair`."""
    return msgspec.json.schema(Pair)
