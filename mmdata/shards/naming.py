"""Names of shards and of what stands beside them, and of samples."""

import re

SHARD_DIGITS = 9
KEY_DIGITS = 12
TAR, SAMPLES, REJECTS, SIDECAR = ".tar", ".samples.parquet", ".rejects.jsonl", ".json"
#: Beside shards whose images were downloaded.
OUTCOMES = ".outcomes.parquet"
#: Beside shards that Energon is to read.
TAR_INDEX = ".tar.idx"
MANIFEST_NAME = "manifest.json"
SIZES_NAME = "sizes.json"
PLAN_NAME = "plan.json"

_OURS = re.compile(
    rf"([0-9]{{{SHARD_DIGITS}}})"
    r"(\.tar|\.tar\.idx|\.samples\.parquet|\.rejects\.jsonl|\.outcomes\.parquet|\.json)"
)


def shard_stem(index: int) -> str:
    """`000000041` for shard 41."""
    return f"{index:0{SHARD_DIGITS}d}"


def sample_key(ordinal: int, prefix: str = "") -> str:
    """The key of the record with this ordinal in the whole input."""
    return f"{prefix}{ordinal:0{KEY_DIGITS}d}"


def shard_of(name: str) -> tuple[int, str] | None:
    """(shard, ending) of a file name that is a shard's or stands beside one; else None."""
    match = _OURS.fullmatch(name)
    return (int(match[1]), match[2]) if match else None
