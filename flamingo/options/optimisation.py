"""What a run can be told of its steps and its optimizer; the standard library only."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from mmdata.option_checks import Options, check_least

Schedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True, kw_only=True)
class OptimisationOptions(Options):
    """How long a run is, and what a step does to the weights."""

    section: ClassVar[str] = "Optimisation"

    max_steps: int | None = None
    """Optimizer steps of the run; overrides the epochs."""
    num_epochs: int = 1
    """Epochs of the given numbers of samples."""
    gradient_accumulation_steps: int = 1
    """Micro-batches of each stream in one optimizer step."""
    merge_streams: Literal["auto", "on", "off"] = "auto"
    """Take micro-batches of all streams through the model in one pass, with the same loss. auto: on
    a GPU, where that adds little padding."""
    learning_rate: float = 1e-4
    """Learning rate after the warm-up; sgd wants one about a hundred times as large as adamw."""
    lr_scheduler: Schedule = "constant"
    """Course of the learning rate after the warm-up; it counts optimizer steps."""
    warmup_steps: int = 0
    """Optimizer steps from 0 to the full learning rate; shorter than the run."""
    optimizer: Literal["adamw", "adamw8bit", "sgd"] = "adamw"
    """adamw8bit keeps its state in 8 bits (torchao); sgd keeps none, or one with --momentum."""
    weight_decay: float = 0.1
    """Decay of the gated cross-attention, and of matrices that --freeze leaves free; of nothing
    else."""
    momentum: float = 0.0
    """Momentum of the optimizer sgd; AdamW has its own."""
    clip_norm: float = 1.0
    """Global gradient norm is cut to this, once an optimizer step; 0: never."""
    max_skipped_steps: int = 10
    """Stop after so many steps in a row with a loss or gradient that is not finite."""

    def _check(self) -> None:
        check_least(self, 1, "gradient_accumulation_steps", "num_epochs", "max_steps")
        check_least(self, 1, "max_skipped_steps")
        check_least(self, 0, "learning_rate", "warmup_steps", "weight_decay")
        check_least(self, 0, "clip_norm", "momentum")
