"""What stands beside shards and tells of them: manifest, sidecars, the plan of a conversion."""

import os
from typing import NamedTuple, TypeVar

import msgspec

from mmdata.errors import BadInputError
from mmdata.shards.naming import MANIFEST_NAME, PLAN_NAME, SIDECAR, TAR, shard_of
from mmdata.storage.files import FileFacts, list_folder, read_bytes
from mmdata.storage.urls import is_web
from mmdata.training_view.records import RecordRule, rule_of_kind
from schemas.manifest import Manifest, Sidecar

_Record = TypeVar("_Record", Manifest, Sidecar)


class ShardFacts(NamedTuple):
    """What is said of a shard; `is_indexed`: others made it, and only what is beside it is ours."""

    num_samples: int
    num_bytes: int
    sha256: str
    is_indexed: bool


class ShardFolder:
    """A folder of shards, looked at once.

    Attributes:
        path: of the folder, or its URL.
        files: its files by name; none of a web server, which has no listings.
        manifest: ours; None where there is none, or another tool's.
        has_plan: a conversion writes or wrote here, whose shards have sidecars once they exist.

    Raises:
        BadInputError: the manifest cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: dict[str, FileFacts] = {} if is_web(path) else list_folder(path or ".")
        self.manifest = self._read_manifest()
        self.has_plan = PLAN_NAME in self.files
        self._rows = {row.shard: row for row in self.manifest.shards} if self.manifest else {}

    def tell(self, shard: str, *, is_checked: bool) -> ShardFacts | None:
        """What the manifest, or else a sidecar, says of a shard; None where nothing does.

        Args:
            shard: file name of the tar.
            is_checked: what has the name of a sidecar of ours has to be one; else it may be
                another tool's file.

        Raises:
            BadInputError: the sidecar cannot be read.
        """
        row = self._rows.get(shard)
        if row is not None and self.manifest is not None:
            is_indexed = bool(self.manifest.options.get("indexed"))
            return ShardFacts(row.samples, row.bytes, row.sha256, is_indexed)
        name = shard.removesuffix(TAR) + SIDECAR
        if name not in self.files:
            return None
        path = os.path.join(self.path, name)
        data = read_bytes(path)
        is_owed = is_checked and shard_of(shard) is not None
        if not is_owed and not (b'"fingerprint"' in data and b'"samples_sha256"' in data):
            return None
        sidecar = decode(path, data, Sidecar)
        return ShardFacts(sidecar.tally.documents, sidecar.bytes, sidecar.sha256, sidecar.indexed)

    def _read_manifest(self) -> Manifest | None:
        path = os.path.join(self.path, MANIFEST_NAME)
        if is_web(path):
            try:
                data = read_bytes(path)
            except OSError:  # a web server without one; it lists nothing
                return None
        elif MANIFEST_NAME in self.files:
            data = read_bytes(path)
        else:
            return None
        return decode(path, data, Manifest) if b'"format_version"' in data else None


def rule_of_conversion(kind: str, layout: str) -> RecordRule:
    """By which rule training reads the samples of a conversion, as its manifest describes it.

    Args:
        kind: of the conversion.
        layout: of its samples, which tells more than the kind.
    """
    return "caption" if layout == "pairs" else rule_of_kind(kind)


def decode(path: str, data: bytes, record: type[_Record]) -> _Record:
    """A manifest or a sidecar.

    Raises:
        BadInputError: it is none; the message names the path.
    """
    try:
        return msgspec.json.decode(data, type=record)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: {error}; mmdata validate tells more") from error
