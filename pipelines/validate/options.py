"""What `mmdata validate` can be told."""

from dataclasses import dataclass, field
from typing import Literal

from mmdata.errors import UserError
from mmdata.option_checks import at_least, check_choices, check_paths
from pipelines.engine.options import check_stall_timeout
from pipelines.validate.forecast_options import ForecastOptions

Level = Literal["structure", "content", "full"]


Severity = Literal["error", "warning"]


ReportFormat = Literal["table", "json", "jsonl", "github"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Validate(ForecastOptions):
    """Check shards: structure, checksums, schema, alignment, images; and forecast training."""

    shards: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Shards (.tar), folders, globs or {000..041} ranges."""
    json: str | None = None
    """Also write the whole report to this file."""
    level: Level | None = None
    """structure: tar blocks and names; content: and hashes, JSON, alignment; full: and images.
    Default: full; with --forecast or --peer structure."""
    checksum: bool = False
    """At level structure, compare the sha256 of the tars too; the other levels always do."""
    select: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Only these rules count: codes or their beginnings (TAR,IMG002). Several times for more."""
    ignore: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """These rules do not count; the longer of two beginnings decides."""
    fail_on: Severity = "error"
    """The least severity that makes the exit code 1."""
    format: ReportFormat = "table"
    """Of what is printed: table for people, json and jsonl for programs, github for its checks."""
    across: bool = False
    """Also compare the shards: documents and images that repeat, similarities that drift."""
    against: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Shards of another dataset (test, say) that must share nothing with these; implies --across.
    Several times for more."""
    rules: bool = False
    """List the rules, and stop."""
    workers: int | None = None
    """Ray worker processes; 0: in this process. Default: all cores, 0 for small jobs."""
    ray_address: str | None = None
    """Address of a running Ray cluster. Default: a Ray of its own on this machine."""
    stall_timeout: float = 600.0
    """Seconds without progress until a unit at Ray is cancelled and run once more; 0: never."""
    max_findings: int = 100
    """Findings shown for each rule; all are counted."""

    def __post_init__(self) -> None:
        ForecastOptions.__post_init__(self)
        check_choices(self)
        for name in ("shards", "select", "ignore", "against"):
            check_paths(getattr(self, name), name)
        if not self.shards and not self.rules:
            raise UserError("no shards given: name .tar files, folders, globs or {000..041} ranges")
        at_least(self.max_findings, 1, "--max-findings")
        if self.workers is not None:
            at_least(self.workers, 0, "--workers")
        check_stall_timeout(self.stall_timeout)

    @property
    def depth(self) -> Level:
        """The level, with its default."""
        return self.level or ("structure" if self.looks_ahead else "full")
