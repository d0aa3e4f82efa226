"""What `mmdata validate` can be told."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from mmdata.errors import UserError
from mmdata.option_checks import check_least
from pipelines.engine.options import EngineOptions
from pipelines.validate.forecast_options import ForecastOptions

Level = Literal["structure", "content", "full"]


Severity = Literal["error", "warning"]


ReportFormat = Literal["table", "json", "jsonl", "github"]


@dataclass(frozen=True, kw_only=True)
class Validate(ForecastOptions, EngineOptions):
    """Check shards: structure, checksums, schema, alignment, images; and forecast training."""

    section: ClassVar[str] = "Checks"

    shards: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Shards (.tar), folders, globs or {000..041} ranges."""
    level: Level | None = None
    """structure: tar blocks and names; content: and hashes, JSON, alignment; full: and images.
    Default: full; with --forecast or --peer structure."""
    checksum: bool = False
    """At level structure, compare the sha256 of the tars too; the other levels always do."""
    select: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Only these rules count: codes or their beginnings (TAR,IMG002). Several times for more."""
    ignore: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """These rules do not count; of --select and --ignore the longer beginning decides.
    Several times for more."""
    fail_on: Severity = "error"
    """The least severity that makes the exit code 1."""
    across: bool = False
    """Also compare the shards: documents and images that repeat, similarities that drift."""
    against: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Shards of another dataset (test, say) that must share nothing with these; implies --across.
    Several times for more."""
    format: ReportFormat = "table"
    """Format of what is printed: table for people, json and jsonl for programs, github for its
    checks."""
    json: str | None = None
    """Also write the whole report to this file."""
    max_findings: int = 100
    """Findings shown for each rule; all are counted."""
    rules: bool = False
    """List the rules, and stop."""

    def _check(self) -> None:
        if not self.shards and not self.rules:
            raise UserError("no shards given: name .tar files, folders, globs or {000..041} ranges")
        check_least(self, 1, "max_findings")

    @property
    def depth(self) -> Level:
        """The level, with its default."""
        return self.level or ("structure" if self.looks_ahead else "full")
