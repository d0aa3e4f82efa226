"""What `mmdata report` can be told. Only the standard library is imported."""

from dataclasses import dataclass, field
from typing import Literal

from mmdata.errors import UserError
from mmdata.option_checks import at_least, check_choices, check_paths
from pipelines.engine.options import check_stall_timeout

Check = Literal["structure", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Write an HTML report of shards: figures, drops, findings, and a gallery of documents."""

    shards: tuple[str, ...] = field(metadata={"positional": True})
    """Shards (.tar), folders, globs or {000..041} ranges."""
    output: str
    """The HTML file to write; replaced if it is there."""
    title: str | None = None
    """Of the page. Default: the names of the folders."""
    documents: int = 60
    """Documents in the gallery that are drawn at random."""
    extremes: int = 12
    """Worst-aligned and best-aligned documents in the gallery, of each."""
    seed: int = 0
    """Seed of the draw."""
    tokenizer: str | None = None
    """Count tokens with this tokenizer.json, on a sample of the documents."""
    findings: str | None = None
    """Show the findings of this report of `mmdata validate --json` instead of looking for them."""
    check: Check = "structure"
    """structure: validate at this level for the findings; none: show no findings."""
    min_similarity: float = 0.24
    """Training's least similarity, for the forecast of what it uses."""
    min_image_bytes: int = 11_000
    """Training's least size of an image file, in bytes."""
    max_images: int = 6
    """Images of a document that training uses at most."""
    workers: int | None = None
    """Ray worker processes; 0: in this process. Default: all cores, 0 for small jobs."""
    ray_address: str | None = None
    """Address of a running Ray cluster. Default: a Ray of its own on this machine."""
    stall_timeout: float = 600.0
    """Seconds without progress until a unit at Ray is cancelled and run once more; 0: never."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_paths(self.shards, "shards")
        if not self.output:
            raise UserError("--output: expected a file, for example report.html")
        at_least(self.documents, 0, "--documents")
        at_least(self.extremes, 0, "--extremes")
        at_least(self.seed, 0, "--seed")
        at_least(self.min_image_bytes, 0, "--min-image-bytes")
        at_least(self.max_images, 1, "--max-images")
        if self.workers is not None:
            at_least(self.workers, 0, "--workers")
        check_stall_timeout(self.stall_timeout)
