"""What `mmdata train-report` can be told. The standard library only, so that help is quick."""

from dataclasses import dataclass, field

from mmdata.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """Write an HTML report of a training run: curves, speed, memory, GPUs, events, options."""

    run: str = field(metadata={"positional": True})
    """Folder of the run (--run-name of `mmdata train`)."""
    output: str | None = None
    """The HTML file to write; report.html in the run's folder when not given."""
    title: str | None = None
    """Of the page. Default: the folder's name."""

    def __post_init__(self) -> None:
        if not self.run:
            raise UserError("expected the folder of a run")
        if self.output == "":
            raise UserError("--output: expected a file, for example report.html")
