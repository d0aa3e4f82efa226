"""Findings, and the collector that bounds what is kept of them but not what is counted.

A damaged dataset can hold millions of findings of one rule; the first 100 say enough. So memory
and what a worker sends back are bounded by rules x max_findings, whatever the shard holds.
"""

from dataclasses import dataclass

import msgspec

from mmdata.validation.rules import BY_CODE


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be.

    Attributes:
        shard: path of the tar, or of the file beside it.
        key: sample key, or member name where there is no key; empty for the whole shard.
        path: where in the document (`$.image_info[0].sha256`), or `@1536` for a byte offset.
        code: of the rule (`rules.BY_CODE`).
        expected: what should be there.
        got: what is.
    """

    shard: str
    key: str
    path: str
    code: str
    expected: str
    got: str

    def __str__(self) -> str:
        where = " ".join(part for part in (self.shard, self.key) if part)
        at = f" - at `{self.path}`" if self.path else ""
        return f"{self.code} expected {self.expected}, got {self.got}{at} ({where})"


@dataclass(slots=True)
class Count:
    """How often one rule was broken."""

    findings: int = 0
    shards: int = 0


class Findings:
    """What one shard, or one dataset, has to say."""

    def __init__(self, shard: str, max_findings: int) -> None:
        self.shard = shard
        self.max_findings = max_findings
        self.counts: dict[str, int] = {}
        self.kept: list[Finding] = []

    def add(self, code: str, expected: str, got: str, *, key: str = "", path: str = "") -> None:
        """Count a finding, and keep it while its rule has fewer than `max_findings`.

        Raises:
            KeyError: no rule has that code.
        """
        code = BY_CODE[code].code
        count = self.counts.get(code, 0)
        self.counts[code] = count + 1
        if count < self.max_findings:
            finding = Finding(
                shard=self.shard,
                key=printable(key),
                path=printable(path),
                code=code,
                expected=shorten(expected),
                got=shorten(got),
            )
            self.kept.append(finding)


def printable(text: str) -> str:
    """Text without what would act on a terminal or break a line: such characters as escapes."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def shorten(text: str, limit: int = 200) -> str:
    """Printable text of at most `limit` characters."""
    text = printable(text)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
