"""What `mmdata report` can be told. Only the standard library is imported."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from mmdata.errors import UserError
from mmdata.option_checks import check_least
from pipelines.engine.options import EngineOptions
from pipelines.validate.forecast_options import UseOptions

Check = Literal["structure", "none"]


@dataclass(frozen=True, kw_only=True)
class Report(UseOptions, EngineOptions):
    """Write an HTML report of shards: figures, drops, findings, and a gallery of documents."""

    section: ClassVar[str] = "Page"

    shards: tuple[str, ...] = field(metadata={"positional": True})
    """Shards (.tar), folders, globs or {000..041} ranges."""
    output: str
    """The HTML file to write; replaced if it is there."""
    title: str | None = None
    """Title of the page. Default: the names of the folders."""
    documents: int = 60
    """Documents in the gallery that are drawn at random."""
    extremes: int = 12
    """Documents in the gallery that are aligned worst, and as many that are aligned best."""
    seed: int = 0
    """Seed of the draw of documents."""
    tokenizer: str | None = None
    """Count tokens with this tokenizer.json, on a sample of the documents."""
    findings: str | None = None
    """Show the findings of this report of `mmdata validate --json` instead of looking for them."""
    check: Check = "structure"
    """structure: validate at this level for the findings; none: show no findings."""

    def _check(self) -> None:
        if not self.output:
            raise UserError("--output: expected a file, for example report.html")
        check_least(self, 0, "documents", "extremes", "seed")
