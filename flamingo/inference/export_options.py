"""What `mmdata export` can be told; the standard library only, as for every command's options."""

from dataclasses import dataclass, field
from typing import Literal

from mmdata.errors import UserError

Format = Literal["openflamingo", "safetensors"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Write a trained model's weights for others: under OpenFlamingo's names, or ours."""

    run: str = field(metadata={"positional": True})
    """A run's folder, one of its checkpoints, or an export."""
    format: Format
    """openflamingo: one flat checkpoint.pt that its evaluation loads; safetensors: ours."""
    output: str | None = None
    """Folder to write; default: exports/FORMAT-step-N in the run's."""
    checkpoint: Literal["latest", "best"] = "latest"
    """Of a run: its last checkpoint, or that of --keep-best."""
    step: int | None = None
    """Of a run: the checkpoint of this step."""
    merge_lora: bool = False
    """Merge LoRA adapters into the language model, and write it whole beside the weights."""
    overwrite: bool = False
    """Replace an export that is there."""
    lm_path: str | None = None
    """Where the language model is now, if it has moved since the training."""
    vision_encoder_path: str | None = None
    """Where the vision encoder is now, if it has moved."""
    vision_encoder_pretrained: str | None = None
    """Where its weights are now, if they have moved."""
    offline: bool = False
    """No network at all."""

    def __post_init__(self) -> None:
        if self.step is not None and self.checkpoint == "best":
            raise UserError("--step and --checkpoint best name two checkpoints: give one")
        if self.step is not None and self.step < 0:
            raise UserError(f"--step {self.step}: expected at least 0")
