"""What `mmdata features` can be told."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from mmdata.errors import UserError
from mmdata.option_checks import check_least
from pipelines.engine.options import RayOptions, check_stall_timeout


@dataclass(frozen=True, kw_only=True)
class ActorOptions(RayOptions):
    """The processes that hold the tower, for as long as the command runs."""

    actors: int | None = None
    """Ray actors that hold the tower; 0: this process. Default: one a core, or one a GPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the tower computes; auto: on GPUs where there are any. Actors share GPUs evenly."""
    decode_threads: int = 2
    """Threads of each actor that decode images."""
    stall_timeout: float = 600.0
    """Seconds without a batch of images until an actor is started again, once; 0: never."""

    def _check(self) -> None:
        check_stall_timeout(self.stall_timeout)
        check_least(self, 1, "decode_threads")
        check_least(self, 0, "actors")
        if self.actors == 0 and self.ray_address is not None:
            raise UserError("--actors 0 works in this process: leave out --ray-address")


@dataclass(frozen=True, kw_only=True)
class Features(ActorOptions):
    """Write the frozen vision tower's patch tokens of shards to disk, for training without it."""

    section: ClassVar[str] = "Shards and vision tower"

    shards: tuple[str, ...] = field(metadata={"positional": True})
    """Shards (.tar), folders, globs or {000..041} ranges."""
    output: str
    """Folder for one file a shard; the trainer takes it as --mmc4-features or as a stream's."""
    vision_encoder_path: str = "ViT-L-14"
    """Vision encoder: a model of open_clip, or a folder with its config and weights."""
    vision_encoder_pretrained: str | None = "openai"
    """Weights of the vision encoder: a tag of open_clip, or a file."""
    vision_tokens: Literal["pre_norm", "post_norm"] = "pre_norm"
    """Patch tokens before or after the tower's last norm, as the training will have them."""
    vision_chunk: int = 64
    """Images that go through the vision tower at once."""
    exact_preprocess: bool = False
    """Pixels as open_clip's own transform gives them, bit for bit; half as fast."""
    offline: bool = False
    """Use no network at all."""

    def _check(self) -> None:
        check_least(self, 1, "vision_chunk")
