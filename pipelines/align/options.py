"""What `mmdata align` can be told."""

from dataclasses import dataclass, field

from mmdata.errors import UserError
from mmdata.option_checks import at_least, check_choices, check_paths
from pipelines.clip.options import ClipDevice, check_clip
from pipelines.conversion.options import check_min_similarity
from pipelines.engine.options import check_stall_timeout


@dataclass(frozen=True, slots=True, kw_only=True)
class Align:
    """Compute the similarities of shards anew with CLIP, and align them by these."""

    shards: tuple[str, ...] = field(metadata={"positional": True})
    """Shards (.tar) of one conversion from the first on: its folder, globs or {000..041} ranges."""
    output: str
    """Folder, or s3:// or gs:// URL, that the new shards are written to."""
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
    energon: bool = False
    """Also write what Megatron-Energon reads by: `.tar.idx` beside each shard, and `.nv-meta`."""
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
