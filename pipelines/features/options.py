"""What `mmdata features` can be told."""

from dataclasses import dataclass, field
from typing import Literal

from mmdata.errors import UserError
from mmdata.option_checks import at_least, check_choices, check_paths
from pipelines.engine.options import check_stall_timeout


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Write the frozen vision tower's patch tokens of shards to disk, for training without it."""

    shards: tuple[str, ...] = field(metadata={"positional": True})
    """Shards (.tar), folders, globs or {000..041} ranges."""
    output: str
    """Folder for one file a shard; the trainer takes it as --mmc4-features or as a stream's."""
    vision_encoder_path: str = "ViT-L-14"
    """open_clip model, or a folder with its config and weights."""
    vision_encoder_pretrained: str | None = "openai"
    """Weights of the vision encoder: a tag of open_clip, or a file."""
    vision_tokens: Literal["pre_norm", "post_norm"] = "pre_norm"
    """Patch tokens before or after the tower's last norm, as the training will have them."""
    vision_chunk: int = 64
    """Images that go through the tower at once."""
    exact_preprocess: bool = False
    """Pixels as open_clip's own transform gives them, bit for bit; half as fast."""
    actors: int | None = None
    """Ray actors that hold the tower; 0: this process. Default: one a core, or one a GPU."""
    decode_threads: int = 2
    """Threads of each actor that decode images."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the tower computes; on GPUs the actors share these evenly."""
    ray_address: str | None = None
    """Address of a running Ray cluster. Default: a Ray of its own on this machine."""
    stall_timeout: float = 600.0
    """Seconds without a batch of images until an actor is started again, once; 0: never."""
    offline: bool = False
    """No network at all."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_paths(self.shards, "shards")
        check_stall_timeout(self.stall_timeout)
        at_least(self.vision_chunk, 1, "--vision-chunk")
        at_least(self.decode_threads, 1, "--decode-threads")
        if self.actors is not None:
            at_least(self.actors, 0, "--actors")
        if self.actors == 0 and self.ray_address is not None:
            raise UserError("--actors 0 works in this process: leave out --ray-address")
