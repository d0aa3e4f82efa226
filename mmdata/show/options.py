"""What `mmdata show` can be told."""

from dataclasses import dataclass, field
from typing import ClassVar

from mmdata.errors import UserError
from mmdata.option_checks import Options, check_least


@dataclass(frozen=True, kw_only=True)
class Show(Options):
    """Print documents of a shard as text: sentences, images, similarities, provenance."""

    section: ClassVar[str] = "Samples"

    shards: tuple[str, ...] = field(metadata={"positional": True})
    """Shards (.tar), folders, globs or ranges; behind them, the key of one sample."""
    key: str | None = None
    """Key of the sample to show."""
    random: int | None = None
    """Show this many samples drawn at random."""
    seed: int = 0
    """Seed of the draw of --random."""
    extract: str | None = None
    """Also write the pictures of what is shown to this folder."""
    json: bool = False
    """Print a JSON object a sample, a line each, instead of text."""
    preview: bool | None = None
    """Draw the pictures in half blocks. Default: where the output is a terminal (less -R)."""

    def _check(self) -> None:
        check_least(self, 1, "random")
        if self.preview and self.json:
            raise UserError("--preview and --json: choose one, they contradict")
