"""What the samples tables say of groups: a hash a sample, and in the schema by which field and key.

Hashes of different keys never agree, so tables say which key theirs have, by an id that tells keys
apart and nothing of them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import BadInputError
from mmdata.shards.reader import open_samples_table, read_samples_table

_BY, _KEY = b"mmdata.group_by", b"mmdata.group_key"
#: Groups that are told apart at a time: 16 bytes each.
_AT_A_TIME = 20_000_000
_Digests = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class GroupLabel:
    """What the column `group` of a samples table holds.

    Attributes:
        by: field that keeps documents together, or `url-host`.
        key: id of the key of the hashes.
    """

    by: str
    key: str

    def metadata(self) -> dict[bytes, bytes]:
        """The label as metadata of a parquet schema."""
        return {_BY: self.by.encode("utf-8", "surrogatepass"), _KEY: self.key.encode()}


def label_of(metadata: Mapping[bytes, bytes] | None) -> GroupLabel | None:
    """The label in the metadata of a schema; None where the table tells no groups."""
    if not metadata or _BY not in metadata or _KEY not in metadata:
        return None
    return GroupLabel(metadata[_BY].decode("utf-8", "surrogatepass"), metadata[_KEY].decode())


def read_label(table: str) -> GroupLabel | None:
    """The label of a samples table; None where it tells no groups.

    Raises:
        BadInputError: it cannot be read.
    """
    with open_samples_table(table) as file:
        return label_of(file.schema_arrow.metadata)


def count_groups(tables: Iterable[str], documents: int) -> tuple[int, int]:
    """(different groups, documents without one) over samples tables that tell groups.

    Args:
        tables: paths.
        documents: about how many they hold; of very many, the tables are read several times.

    Raises:
        BadInputError: a table cannot be read, or tells no groups.
    """
    paths = list(tables)
    parts = max(1, -(-documents // _AT_A_TIME))
    groups = without = 0
    for part in range(parts):
        found: list[_Digests] = []
        for path in paths:
            hashes = read_samples_table(path, ["group"])["group"]
            without += sum(not text for text in hashes) if part == 0 else 0
            found.append(_digests(path, hashes, part, parts))
        every = np.concatenate(found) if found else np.empty((0, 2), np.uint64)
        groups += len(np.unique(every, axis=0))
    return groups, without


def _digests(path: str, hashes: list[str], part: int, parts: int) -> _Digests:
    """The hashes of one part of all that there can be, as pairs of numbers."""
    try:
        data = b"".join(bytes.fromhex(text) for text in hashes if text)
        digests = np.frombuffer(data, ">u8").astype(np.uint64).reshape(-1, 2)
    except ValueError as error:
        raise BadInputError(f"{path}: a group that is no hash: {error}") from error
    here: _Digests = digests[digests[:, 1] % np.uint64(parts) == part]
    return here
