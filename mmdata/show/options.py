"""What `mmdata show` can be told."""

from dataclasses import dataclass, field

from mmdata.errors import UserError
from mmdata.option_checks import at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """Print documents of a shard as text: sentences, images, similarities, provenance."""

    shards: tuple[str, ...] = field(metadata={"positional": True})
    """Shards (.tar), folders, globs or ranges; behind them, the key of one sample."""
    key: str | None = None
    """Key of the sample to show."""
    random: int | None = None
    """Show this many samples drawn at random."""
    seed: int = 0
    """Seed of the draw."""
    extract: str | None = None
    """Also write the pictures of what is shown to this folder."""
    json: bool = False
    """Print a JSON object a sample, a line each, instead."""
    preview: bool | None = None
    """Draw the pictures in half blocks. Default: where the output is a terminal (less -R)."""

    def __post_init__(self) -> None:
        if self.random is not None:
            at_least(self.random, 1, "--random")
        if self.preview and self.json:
            raise UserError("--preview and --json: choose one, they contradict")
