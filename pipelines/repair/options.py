"""What `repair` and `index` can be told. Only the standard library is imported here."""

from dataclasses import dataclass, field

from mmdata.option_checks import at_least, check_choices, check_paths
from pipelines.engine.options import check_stall_timeout


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """Save what can be saved of damaged shards, into another folder, with a line for each loss."""

    shards: tuple[str, ...] = field(metadata={"positional": True})
    """Shards (.tar), ours or others', in order: folders, globs or {000..041} ranges."""
    output: str
    """Folder that the new shards are written to."""
    keep_text_only: bool = False
    """Keep documents that lose all their images."""
    max_pixels: int = 100_000_000
    """Refuse images of more pixels, by their header."""
    workers: int | None = None
    """Ray worker processes; 0: in this process. Default: all cores, 0 for small jobs."""
    ray_address: str | None = None
    """Address of a running Ray cluster. Default: a Ray of its own on this machine."""
    stall_timeout: float = 600.0
    """Seconds without progress until a unit at Ray is cancelled and run once more; 0: never."""
    skip_bad_inputs: bool = False
    """Leave out files that are no tars, and name them, instead of refusing to start."""
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
        at_least(self.max_pixels, 1, "--max-pixels")
        if self.workers is not None:
            at_least(self.workers, 0, "--workers")
        check_stall_timeout(self.stall_timeout)

    @property
    def limit(self) -> None:
        """None: all shards are repaired."""
        return None

    @property
    def refresh_missing(self) -> bool:
        """False: no image is looked for elsewhere."""
        return False

    @property
    def clip_actors(self) -> None:
        """None: nothing is scored."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Write sidecars, samples tables, manifest and sizes.json beside shards made by others."""

    shards: tuple[str, ...] = field(metadata={"positional": True})
    """Shards (.tar): folders, globs or {000..041} ranges; every tar of a folder is indexed."""
    energon: bool = False
    """Also write what Megatron-Energon reads by; beside shards of ours, only this is written."""
    workers: int | None = None
    """Ray worker processes; 0: in this process. Default: all cores, 0 for small jobs."""
    ray_address: str | None = None
    """Address of a running Ray cluster. Default: a Ray of its own on this machine."""
    stall_timeout: float = 600.0
    """Seconds without progress until a unit at Ray is cancelled and run once more; 0: never."""
    overwrite: bool = False
    """Index shards again whose index is there and fits."""

    def __post_init__(self) -> None:
        check_paths(self.shards, "shards")
        if self.workers is not None:
            at_least(self.workers, 0, "--workers")
        check_stall_timeout(self.stall_timeout)
