"""Findings, and the collector that bounds what is kept of them but not what is counted.

A damaged dataset can hold millions of findings of one rule; the first 100 say enough. So memory
and what a worker sends back are bounded by rules x max_findings, whatever the shard holds.
"""

from mmdata.validation.rules import RULES
from schemas.validation import Finding


class Findings:
    """What one shard, or one dataset, has to say."""

    def __init__(self, shard: str, max_findings: int) -> None:
        self.shard = shard
        self.max_findings = max_findings
        self.counts: dict[str, int] = {}
        self.kept: list[Finding] = []
        #: By rule, where findings are about other shards than this one.
        self.shards: dict[str, int] = {}

    def add(
        self,
        code: str,
        expected: str,
        got: str,
        *,
        key: str = "",
        path: str = "",
        shard: str | None = None,
    ) -> None:
        """Count a finding, and keep it while its rule has fewer than `max_findings`.

        Args:
            code: of the rule.
            expected: what should be there.
            got: what is.
            key: of the sample, or a member's name.
            path: where in the document, or `@` and a byte offset.
            shard: where it is not the one that these findings are about.

        Raises:
            KeyError: no rule has that code.
        """
        code = RULES[code].code
        count = self.counts.get(code, 0)
        self.counts[code] = count + 1
        if count < self.max_findings:
            finding = Finding(
                shard=self.shard if shard is None else shard,
                key=printable(key),
                path=printable(path),
                code=code,
                expected=shorten(expected),
                got=shorten(got),
            )
            self.kept.append(finding)

    def count(self, code: str, number: int, *, shards: int) -> None:
        """Count findings of which none is to be kept.

        Args:
            code: of the rule.
            number: of findings, besides those that were added.
            shards: that the findings of this rule are about, all together.
        """
        if number:
            self.counts[RULES[code].code] = self.counts.get(code, 0) + number
        self.shards[code] = shards


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
