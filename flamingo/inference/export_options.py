"""What `mmdata export` can be told; the standard library only, as for every command's options."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from flamingo.inference.options import MovedOptions
from mmdata.errors import UserError
from mmdata.option_checks import check_least

Format = Literal["openflamingo", "safetensors"]


@dataclass(frozen=True, kw_only=True)
class Export(MovedOptions):
    """Write a trained model's weights for others: under OpenFlamingo's names, or ours."""

    section: ClassVar[str] = "Model and output"

    run: str = field(metadata={"positional": True})
    """A run's folder, one of its checkpoints, or an export."""
    format: Format
    """openflamingo: one flat checkpoint.pt that its evaluation loads; safetensors: ours."""
    output: str | None = None
    """Folder to write. Default: exports/FORMAT-step-N in the run's."""
    checkpoint: Literal["latest", "best"] = "latest"
    """Which checkpoint of a run: its last, or that of --keep-best."""
    step: int | None = None
    """Take the checkpoint of this step of a run."""
    merge_lora: bool = False
    """Merge LoRA adapters into the language model, and write it whole beside the weights."""
    overwrite: bool = False
    """Replace an export that is there."""

    def _check(self) -> None:
        if self.step is not None and self.checkpoint == "best":
            raise UserError("--step and --checkpoint best name two checkpoints: give one")
        check_least(self, 0, "step")
