"""The report of a validation: totals, counts by rule, and the findings that were kept.

It is built from results in whatever order workers hand them in and comes out the same: findings
stand in the order of the shards, at most `max_findings` of each rule, while all are counted.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from mmdata.errors import EXIT_DONE, EXIT_FINDINGS
from mmdata.validation.findings import Finding
from mmdata.validation.rules import BY_CODE, Level

#: Of the JSON form; raised when a field changes its meaning.
SCHEMA_VERSION = "1"


class RuleCount(msgspec.Struct, frozen=True, kw_only=True):
    """How often one rule was broken, and in how many shards (or other files)."""

    code: str
    severity: str
    findings: int
    shards: int
    meaning: str
    remedy: str


class ValidationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a validation found.

    Attributes:
        level: how far it looked.
        shards: number of tars.
        samples: distinct keys in each, together.
        images: images with bytes.
        bytes: of the tars.
        counts: rules that were broken, errors first.
        findings: at most `max_findings` of each rule, in the order of the shards.
    """

    schema_version: str = SCHEMA_VERSION
    level: Level
    shards: int
    samples: int
    images: int
    bytes: int
    counts: list[RuleCount]
    findings: list[Finding]

    @property
    def errors(self) -> int:
        """Findings that fail the run."""
        return sum(count.findings for count in self.counts if count.severity == "error")

    @property
    def warnings(self) -> int:
        """Findings that do not."""
        return sum(count.findings for count in self.counts if count.severity == "warning")

    @property
    def exit_code(self) -> int:
        """0 without errors, else 1."""
        return EXIT_FINDINGS if self.errors else EXIT_DONE

    def to_json(self) -> str:
        """The whole report as indented JSON, with `schema_version` and `exit_code`."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        fields |= {"errors": self.errors, "warnings": self.warnings, "exit_code": self.exit_code}
        return msgspec.json.format(msgspec.json.encode(fields), indent=2).decode() + "\n"


class ReportBuilder:
    """Takes findings in any order, keeps the first of each rule, counts all."""

    def __init__(self, max_findings: int) -> None:
        self._max_findings = max_findings
        self._kept: dict[str, list[tuple[int, int, Finding]]] = {}
        self._findings: dict[str, int] = {}
        self._shards: dict[str, int] = {}

    def add(self, place: int, counts: dict[str, int], findings: Sequence[Finding]) -> None:
        """Take the findings of one shard (or folder).

        Args:
            place: where they stand among the others.
            counts: by rule, of all of them.
            findings: those that were kept, in order.
        """
        for code, count in counts.items():
            self._findings[code] = self._findings.get(code, 0) + count
            self._shards[code] = self._shards.get(code, 0) + 1
        for number, finding in enumerate(findings):
            kept = self._kept.setdefault(finding.code, [])
            kept.append((place, number, finding))
            if len(kept) > 4 * self._max_findings:
                self._trim(kept)

    def build(
        self, level: Level, *, shards: int, samples: int, images: int, num_bytes: int
    ) -> ValidationReport:
        """The report, once every shard was heard."""
        for kept in self._kept.values():
            self._trim(kept)
        ordered = sorted(
            (entry for kept in self._kept.values() for entry in kept), key=lambda e: e[:2]
        )
        return ValidationReport(
            level=level,
            shards=shards,
            samples=samples,
            images=images,
            bytes=num_bytes,
            counts=self._counts(),
            findings=[finding for _, _, finding in ordered],
        )

    def _counts(self) -> list[RuleCount]:
        codes = sorted(self._findings, key=lambda code: (BY_CODE[code].severity, code))
        return [
            RuleCount(
                code=code,
                severity=BY_CODE[code].severity,
                findings=self._findings[code],
                shards=self._shards[code],
                meaning=BY_CODE[code].meaning,
                remedy=BY_CODE[code].remedy,
            )
            for code in codes
        ]

    def _trim(self, kept: list[tuple[int, int, Finding]]) -> None:
        kept.sort(key=lambda entry: entry[:2])
        del kept[self._max_findings :]
