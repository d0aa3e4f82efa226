"""Which group a document belongs to, and which split its group: a group is never parted.

The group is a field of the source (`id`, `patient`, `meta.subject`), whatever else that field is
used for, or the host of its URL. A document without one is a group of its own, by its text. Which
split follows from a hash of the group and the seed alone: not from the order of inputs, from other
documents, or from how many there are.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mmdata.sources.base import SourceDocument
from mmdata.sources.fields import text_of, value_at
from mmdata.sources.keyed_hash import key_id, keyed_hash

URL_HOST = "url-host"
_SCALE = 2**64
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Grouping:
    """What keeps documents together, and how the samples tables name it.

    Attributes:
        by: `id`, `url-host` or a field; `a.b` is field b of the object a.
        key: of the hashes that stand for groups.
        asked: the user named the field; then samples tables tell groups, and a document without
            one is worth a remark. Splits that are by `id` of themselves tell none: ids of records
            that are equal in two datasets are chance, more often than not.
    """

    by: str
    key: bytes = field(repr=False)
    asked: bool = True

    @property
    def key_id(self) -> str:
        """Tells whether two tables have hashes of one key."""
        return key_id(self.key)

    def document(self, document: SourceDocument, fields: Mapping[str, Any]) -> SourceDocument:
        """A document with its group.

        Args:
            document: of a record.
            fields: all that the record has, also what the document was made of.
        """
        return replace(document, group=group_of(document, fields, self.by))

    def of_record(self, document: SourceDocument, record: bytes) -> SourceDocument:
        """A document with its group, of a record that is the bytes of a JSON object."""
        return self.document(document, {} if self.by == URL_HOST else _FIELDS.decode(record))

    def digest(self, group: str | None) -> str:
        """What stands for a group in a samples table; empty for none."""
        return "" if group is None else keyed_hash(self.key, group)


@dataclass(frozen=True, slots=True)
class SplitRule:
    """One split of several.

    Attributes:
        name: of the split.
        low: its part of the hash's range begins here, 0 to 1.
        high: and ends before this.
        by: as of `Grouping`.
        seed: of the hash.
    """

    name: str
    low: float
    high: float
    by: str
    seed: int

    @property
    def share(self) -> float:
        """How much of the groups it takes, 0 to 1."""
        return self.high - self.low

    def holds(self, document: SourceDocument) -> bool:
        """Whether a document, which knows its group, belongs to this split."""
        group = document.group
        if group is None:
            group = "\0".join(["", *document.text_list])
        key = b"mmdata split %d" % self.seed
        data = group.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(data, digest_size=8, key=key[:64]).digest()
        return self.low <= int.from_bytes(digest, "big") / _SCALE < self.high


def make_rules(shares: dict[str, float], by: str, seed: int) -> list[SplitRule]:
    """The rules of all splits: parts of the range in the order given, up to its very end.

    Args:
        shares: of each split by its name, 0 to 1; they add up to 1.
        by: the field whose value keeps documents together, as of `Grouping`.
        seed: another one splits otherwise.
    """
    rules = []
    low = 0.0
    for number, (name, share) in enumerate(shares.items(), start=1):
        # Past the end for the last: a sum of shares may round to just below 1.
        high = 1.5 if number == len(shares) else low + share
        rules.append(SplitRule(name, low, high, by, seed))
        low = high
    return rules


def group_of(document: SourceDocument, fields: Mapping[str, Any], by: str) -> str | None:
    """The group of a document as text; None where it has none.

    Args:
        document: of a record.
        fields: of the record.
        by: as of `Grouping`.
    """
    if by != URL_HOST:
        return text_of(value_at(fields, by))
    raws = [document.extras.get("url"), *(image.fields.get("raw_url") for image in document.images)]
    return host_of(raws)


def host_of(urls: Iterable[msgspec.Raw | None]) -> str | None:
    """The host of the first URL, as raw JSON, that has one."""
    for raw in urls:
        try:
            host = urlsplit(msgspec.json.decode(raw, type=str)).hostname if raw else None
        except (msgspec.DecodeError, ValueError):
            continue
        if host:
            return host
    return None
