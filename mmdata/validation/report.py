"""The report of a validation: totals, counts by rule, and the findings that were kept.

It is built from results in whatever order workers hand them in and comes out the same: findings
stand in the order of the shards, at most `max_findings` of each rule, while all are counted.
"""

from collections.abc import Mapping, Sequence, Set

import msgspec

from mmdata.errors import EXIT_DONE, EXIT_FINDINGS
from mmdata.validation.rules import RULES
from schemas.forecast import Forecast, PeerForecast
from schemas.validation import AcrossReport, Finding, Level, RuleCount, Severity, ValidationReport

__all__ = ["ReportBuilder", "ValidationReport", "with_outlook"]


class ReportBuilder:
    """Takes findings in any order, keeps the first of each rule, counts all.

    Args:
        max_findings: to keep of each rule.
        codes: of the rules that count; None: all.
        fail_on: the least severity that fails the run.
    """

    def __init__(
        self,
        max_findings: int,
        codes: Set[str] | None = None,
        fail_on: Severity = "error",
    ) -> None:
        self._max_findings = max_findings
        self._codes = RULES.keys() if codes is None else codes
        self._fail_on = fail_on
        self._kept: dict[str, list[tuple[int, int, Finding]]] = {}
        self._findings: dict[str, int] = {}
        self._shards: dict[str, int] = {}

    def add(
        self,
        place: int,
        counts: dict[str, int],
        findings: Sequence[Finding],
        shards: Mapping[str, int] | None = None,
    ) -> None:
        """Take the findings of one shard (or folder).

        Args:
            place: where they stand among the others.
            counts: by rule, of all of them.
            findings: those that were kept, in order.
            shards: that they are about, by rule, where that is more than one.
        """
        shards = shards or {}
        for code, count in counts.items():
            if code in self._codes:
                self._findings[code] = self._findings.get(code, 0) + count
                self._shards[code] = self._shards.get(code, 0) + shards.get(code, 1)
        for number, finding in enumerate(findings):
            if finding.code not in self._codes:
                continue
            kept = self._kept.setdefault(finding.code, [])
            kept.append((place, number, finding))
            if len(kept) > 4 * self._max_findings:
                self._trim(kept)

    def build(
        self,
        level: Level,
        *,
        shards: int,
        samples: int,
        images: int,
        uncounted: int = 0,
        num_bytes: int,
        across: AcrossReport | None = None,
    ) -> ValidationReport:
        """The report, once every shard was heard.

        Args:
            level: that the shards were checked to.
            shards: that were checked.
            samples: in them.
            images: in the samples.
            uncounted: shards whose images were not counted.
            num_bytes: of the shards.
            across: what a comparison of the shards found; None without one.
        """
        for kept in self._kept.values():
            self._trim(kept)
        ordered = sorted(
            (entry for kept in self._kept.values() for entry in kept), key=lambda e: e[:2]
        )
        counts = self._counts()
        errors = sum(count.findings for count in counts if count.severity == "error")
        warnings = sum(count.findings for count in counts if count.severity == "warning")
        failing = errors + warnings if self._fail_on == "warning" else errors
        return ValidationReport(
            level=level,
            shards=shards,
            samples=samples,
            images=images,
            uncounted=uncounted,
            bytes=num_bytes,
            errors=errors,
            warnings=warnings,
            exit_code=EXIT_FINDINGS if failing else EXIT_DONE,
            counts=counts,
            findings=[finding for _, _, finding in ordered],
            across=across,
        )

    def _counts(self) -> list[RuleCount]:
        codes = sorted(self._findings, key=lambda code: (RULES[code].severity, code))
        return [
            RuleCount(
                code=code,
                severity=RULES[code].severity,
                findings=self._findings[code],
                shards=self._shards[code],
                meaning=RULES[code].meaning,
                remedy=RULES[code].remedy,
            )
            for code in codes
        ]

    def _trim(self, kept: list[tuple[int, int, Finding]]) -> None:
        kept.sort(key=lambda entry: entry[:2])
        del kept[self._max_findings :]


def with_outlook(
    report: ValidationReport, forecast: Forecast | None, peer: PeerForecast | None
) -> ValidationReport:
    """A report with forecasts added; shards that these could not read fail the run."""
    unread = [one for one in (forecast, peer) if one is not None and one.unread]
    exit_code = EXIT_FINDINGS if unread else report.exit_code
    return msgspec.structs.replace(report, forecast=forecast, peer=peer, exit_code=exit_code)
