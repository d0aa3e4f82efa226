"""What `mmdata train-report` can be told. The standard library only, so that help is quick."""

from dataclasses import dataclass, field
from typing import ClassVar

from mmdata.errors import UserError
from mmdata.option_checks import Options


@dataclass(frozen=True, kw_only=True)
class TrainReport(Options):
    """Write an HTML report of a training run: curves, speed, memory, GPUs, events, options."""

    section: ClassVar[str] = "Page"

    run: str = field(metadata={"positional": True})
    """Folder of the run (--run-name of `mmdata train`)."""
    output: str | None = None
    """The HTML file to write. Default: report.html in the run's folder."""
    title: str | None = None
    """Title of the page. Default: the folder's name."""

    def _check(self) -> None:
        if not self.run:
            raise UserError("expected the folder of a run")
        if self.output == "":
            raise UserError("--output: expected a file, for example report.html")
