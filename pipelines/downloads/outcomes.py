"""`000000000.outcomes.parquet`: how the download of each row of a shard ended.

It stands beside the shard and not in its sidecar: it holds times, which differ from run to run.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmdata.errors import BadInputError
from mmdata.fetch.outcome import Fetched, FetchStatus
from mmdata.shards.naming import OUTCOMES, shard_stem
from mmdata.storage.files import read_bytes
from schemas.laion import OUTCOME_COLUMNS
from schemas.reasons import ImageDrop

#: `status` of a row that was dropped before anything was asked.
NOT_ASKED = "not-asked"
KEPT = "kept"
#: Asking again cannot help.
_FINAL = frozenset((FetchStatus.OK.value, FetchStatus.BAD_URL.value, NOT_ASKED))
#: Of what was fetched: an error page or half a picture, which another time may be whole.
_DAMAGED = frozenset(
    reason.value
    for reason in (
        ImageDrop.NOT_AN_IMAGE,
        ImageDrop.TRUNCATED,
        ImageDrop.UNREADABLE,
        ImageDrop.INCOMPLETE_SCANS,
    )
)
#: What an image is counted as, by how its download ended.
_DROPS = {
    FetchStatus.BAD_URL: ImageDrop.UNSAFE_URL,
    FetchStatus.PRIVATE_ADDRESS: ImageDrop.UNSAFE_URL,
    FetchStatus.TOO_LARGE: ImageDrop.TOO_LARGE,
    FetchStatus.NOAI: ImageDrop.NOAI,
}


def image_drop(status: FetchStatus) -> ImageDrop:
    """What an image that was not fetched is counted as."""
    return _DROPS.get(status, ImageDrop.NOT_FETCHED)


def outcome_row(
    key: str, url: str, fetched: Fetched | None, sha256: str, result: str, detail: str
) -> dict[str, Any]:
    """A row of the table.

    Args:
        key: of the sample.
        url: as the source has it.
        fetched: None where nothing was asked.
        sha256: of the body.
        result: `kept`, or why there is no sample.
        detail: one line.
    """
    if fetched is None:
        fetched, status = Fetched(FetchStatus.BAD_URL), NOT_ASKED
    else:
        status = fetched.status.value
    return {
        "key": key,
        "url": url,
        "status": status,
        "http_status": fetched.http_status,
        "bytes": len(fetched.data),
        "sha256": sha256,
        "attempts": fetched.attempts,
        "seconds": round(fetched.seconds, 3),
        "result": result,
        "detail": (fetched.detail or detail)[:300],
    }


def is_failed(row: dict[str, Any]) -> bool:
    """Whether fetching a row again may help."""
    if row["status"] in _FINAL:
        return row["status"] == FetchStatus.OK.value and row["result"] in _DAMAGED
    return True


def write_table(
    rows: Sequence[dict[str, Any]], metadata: Mapping[str, bytes] | None = None
) -> bytes:
    """The table as a parquet file, with `metadata` in its schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        "string": pa.string(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "double": pa.float64(),
    }
    columns = {
        name: pa.array([row[name] for row in rows], kinds[kind])
        for name, (kind, _) in OUTCOME_COLUMNS.items()
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, metadata=metadata), sink, compression="zstd")
    return bytes(sink.getvalue())


def outcomes_path(output: str, shard: int) -> str:
    """Where a shard's table is."""
    return os.path.join(output, shard_stem(shard) + OUTCOMES)


def read_table(path: str) -> list[dict[str, Any]]:
    """The rows of a table; none where there is no table.

    Raises:
        BadInputError: it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(read_bytes(path)), pre_buffer=False)
        table = file.read(columns=list(OUTCOME_COLUMNS), use_threads=False)
    except FileNotFoundError:
        return []
    except (OSError, KeyError, pa.ArrowException) as error:
        raise BadInputError(f"{path}: not a table of outcomes: {error}") from error
    columns = [table.column(name).to_pylist() for name in OUTCOME_COLUMNS]
    return [
        dict(zip(OUTCOME_COLUMNS, values, strict=True)) for values in zip(*columns, strict=True)
    ]


def has_failed(output: str, shard: int) -> bool:
    """Whether a shard has rows that may be fetched again."""
    return any(map(is_failed, read_table(outcomes_path(output, shard))))
