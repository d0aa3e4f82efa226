"""Which split a document belongs to: a keyed hash of its group, so that a group is never parted.

The group is a field of the source (`id`, `patient`, `meta.subject`) or the host of its URL. A
document without one is a group of its own, by its text. The hash depends on the group and the seed
alone: not on the order of inputs, on other documents, or on how many there are.
"""

import hashlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mmdata.sources.base import SourceDocument

_SCALE = 2**64


@dataclass(frozen=True, slots=True)
class SplitRule:
    """One split of several.

    Attributes:
        name: of the split.
        low: its part of the hash's range begins here, 0 to 1.
        high: and ends before this.
        by: `id`, `url-host` or a field; `a.b` is field b of the object a.
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
        """Whether a document belongs to this split."""
        group = group_of(document, self.by)
        if group is None:
            group = "\0".join(["", *document.text_list])
        key = b"mmdata split %d" % self.seed
        data = group.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(data, digest_size=8, key=key[:64]).digest()
        return self.low <= int.from_bytes(digest, "big") / _SCALE < self.high


def make_rules(shares: dict[str, float], by: str, seed: int) -> list[SplitRule]:
    """The rules of all splits: parts of the range in the order given, up to its very end."""
    rules = []
    low = 0.0
    for number, (name, share) in enumerate(shares.items(), start=1):
        # Past the end for the last: a sum of shares may round to just below 1.
        high = 1.5 if number == len(shares) else low + share
        rules.append(SplitRule(name, low, high, by, seed))
        low = high
    return rules


def group_of(document: SourceDocument, by: str) -> str | None:
    """The group of a document as text; None where it has none."""
    if by == "url-host":
        return _host(document)
    name, *inner = by.split(".")
    raw = document.extras.get(name)
    if raw is None:
        return None
    value: Any = msgspec.json.decode(raw)
    for name in inner:
        value = value.get(name) if isinstance(value, dict) else None
    if value is None:
        return None
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _host(document: SourceDocument) -> str | None:
    """The host of the document's URL, else of its first image that has one."""
    raws = [document.extras.get("url"), *(image.fields.get("raw_url") for image in document.images)]
    for raw in raws:
        try:
            host = urlsplit(msgspec.json.decode(raw, type=str)).hostname if raw else None
        except (msgspec.DecodeError, ValueError):
            continue
        if host:
            return host
    return None
