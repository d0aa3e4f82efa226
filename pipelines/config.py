"""What each data command can be told: one dataclass a command, which is also its Python API.

Only the standard library is imported here (and modules that keep to the same rule), so that the
command line can show its help without loading numpy, ray or pyarrow.
"""

from dataclasses import dataclass, field
from typing import Literal

from mmdata.errors import UserError
from pipelines.options import (
    ClipDevice,
    Conversion,
    at_least,
    check_choices,
    check_clip,
    check_image_path,
    check_min_similarity,
    check_paths,
    check_stall_timeout,
)

Level = Literal["structure", "content", "full"]
Check = Literal["structure", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertMmc4(Conversion):
    """Convert MMC4 documents and a folder of downloaded images to shards."""

    docs: tuple[str, ...] = field(metadata={"positional": True})
    """MMC4 files (.jsonl, .jsonl.zip, .jsonl.gz, .jsonl.zst), folders, globs or {0..9} ranges."""
    images: str
    """A folder (`<shard number>/`, `<stem>/`, flat), tars, parquet files or img2dataset output."""
    image_path: str | None = None
    """Where an image lies, as a pattern of {root}, {shard}, {stem} and {image_name}."""
    allow_symlinks_to: tuple[str, ...] = ()
    """Folders outside the image folder that links in it may lead to (hub caches)."""

    def __post_init__(self) -> None:
        Conversion.__post_init__(self)  # `super()` does not know a class that slots made anew
        check_paths(self.docs, "docs")
        check_paths(self.allow_symlinks_to, "--allow-symlinks-to")
        if self.image_path is not None:
            check_image_path(self.image_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Align:
    """Compute the similarities of shards anew with CLIP, and align them by these."""

    shards: tuple[str, ...] = field(metadata={"positional": True})
    """Shards (.tar) of one conversion from the first on: its folder, globs or {000..041} ranges."""
    output: str
    """Folder that the new shards are written to."""
    clip_model: str | None = None
    """CLIP that computes similarities: of open_clip (ViT-L-14), local-dir:PATH or hf-hub:NAME."""
    clip_pretrained: str | None = None
    """Its weights: a tag of open_clip (openai) or a file; not for local-dir and hf-hub."""
    clip_batch_size: int = 64
    """Images, and sentences, in every batch of the CLIP."""
    clip_device: ClipDevice = "auto"
    """Where the CLIP computes; auto: on a GPU where torch sees one."""
    clip_actors: int | None = None
    """Ray actors that hold the CLIP. Default: one a GPU; on a CPU none, every worker holds it."""
    min_similarity: float | None = None
    """Drop images whose similarity to their sentence is below this (-1 to 1)."""
    keep_text_only: bool = False
    """Keep documents that lose all their images to --min-similarity."""
    workers: int | None = None
    """Ray worker processes; 0: in this process. Default: all cores, 0 for small jobs."""
    ray_address: str | None = None
    """Address of a running Ray cluster. Default: a Ray of its own on this machine."""
    stall_timeout: float = 600.0
    """Seconds without progress until a unit at Ray is cancelled and run once more; 0: never."""
    overwrite: bool = False
    """Replace what another run wrote to the output folder."""
    verify_committed: bool = False
    """Hash the shards that are already there, instead of trusting their size."""
    ignore_free_space: bool = False
    """Start even if the estimate says that the disk cannot hold the output."""
    log_json: str | None = None
    """Append progress, shards, drops and failures to this file, as JSON lines."""
    dry_run: bool = False
    """Make the plan, print it, and stop."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_paths(self.shards, "shards")
        if self.clip_model is None:
            raise UserError("--clip-model: expected a CLIP, for example ViT-L-14 (and its weights)")
        check_clip(self, self.workers)
        check_min_similarity(self.min_similarity)
        if self.workers is not None:
            at_least(self.workers, 0, "--workers")
        check_stall_timeout(self.stall_timeout)

    @property
    def limit(self) -> None:
        """None: all shards are aligned."""
        return None

    @property
    def refresh_missing(self) -> bool:
        """False: no image is missing."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Validate:
    """Check shards: structure, checksums, schema, alignment, images."""

    shards: tuple[str, ...] = field(metadata={"positional": True})
    """Shards (.tar), folders, globs or {000..041} ranges."""
    json: str | None = None
    """Also write the whole report to this file."""
    level: Level = "full"
    """structure: tar blocks and names; content: and hashes, JSON, alignment; full: and images."""
    workers: int | None = None
    """Ray worker processes; 0: in this process. Default: all cores, 0 for small jobs."""
    ray_address: str | None = None
    """Address of a running Ray cluster. Default: a Ray of its own on this machine."""
    stall_timeout: float = 600.0
    """Seconds without progress until a unit at Ray is cancelled and run once more; 0: never."""
    max_findings: int = 100
    """Findings shown for each rule; all are counted."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_paths(self.shards, "shards")
        at_least(self.max_findings, 1, "--max-findings")
        if self.workers is not None:
            at_least(self.workers, 0, "--workers")
        check_stall_timeout(self.stall_timeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Tell how far a conversion is, while it runs and after a crash, from any machine."""

    output: str = field(metadata={"positional": True})
    """Folder that the shards are written to."""
    clean: bool = False
    """Remove what killed runs left under temporary names; refused while a run goes on."""


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

    def __post_init__(self) -> None:
        if self.random is not None:
            at_least(self.random, 1, "--random")


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
