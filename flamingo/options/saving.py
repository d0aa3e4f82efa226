"""What a run can be told of its checkpoints; the standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from mmdata.errors import UserError
from mmdata.option_checks import Options, check_least


@dataclass(frozen=True, kw_only=True)
class SavingOptions(Options):
    """When checkpoints are written, which stay, and what a run starts from."""

    section: ClassVar[str] = "Saving and resuming"

    save_steps: int | None = None
    """Optimizer steps between checkpoints; one is always written at the end."""
    save_epochs: int | None = None
    """Epochs (of --train-num-samples-…) between checkpoints."""
    keep_last: int | None = None
    """Remove all but the newest so many, and what --keep-every and --keep-best keep."""
    keep_every: int | None = None
    """Checkpoints at a multiple of so many steps stay as well, beside those of --keep-last."""
    keep_best: str | None = None
    """Validation stream whose lowest loss is saved and named `best`; it stays as well."""
    init_from: str | None = None
    """Start from the weights alone of a run, a checkpoint, or a file of OpenFlamingo's."""
    resume_from_checkpoint: str | None = None
    """Go on from this checkpoint of ours, with optimizer and position."""
    allow_new_batch_size: bool = False
    """Resume with another global batch: a new sequence of samples, from a fresh epoch on."""
    async_checkpoint: bool = True
    """Go on training while a checkpoint is written, from a copy in host memory."""
    delete_previous_checkpoint: bool = False
    """Keep only the newest checkpoint (OpenFlamingo's name for --keep-last 1)."""

    def _check(self) -> None:
        check_least(self, 1, "save_steps", "save_epochs", "keep_last", "keep_every")
        if self.init_from and self.resume_from_checkpoint:
            raise UserError("--init-from starts a run, --resume-from-checkpoint goes on: give one")
        if self.delete_previous_checkpoint and self.keep_last not in (None, 1):
            raise UserError(
                f"--delete-previous-checkpoint means --keep-last 1, not {self.keep_last}: give one"
            )
        if self.keep_every and not (self.keep_last or self.delete_previous_checkpoint):
            raise UserError("--keep-every goes with --keep-last; without it all checkpoints stay")
