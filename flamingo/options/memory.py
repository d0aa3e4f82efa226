"""What a run can be told of the memory it takes; the standard library only."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from mmdata.errors import UserError
from mmdata.option_checks import Options, check_least


@dataclass(frozen=True, kw_only=True)
class MemoryOptions(Options):
    """What saves memory, and what tells beforehand how much a run takes."""

    section: ClassVar[str] = "Memory"

    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass instead of keeping their activations."""
    checkpoint_policy: Literal["selective", "full"] | None = None
    """What --gradient-checkpointing recomputes: whole blocks (full), or all in them but matrix
    products and attention (selective: little time, less memory saved). Default: full."""
    cpu_offload: Literal["optimizer", "params"] | None = None
    """Keep the optimizer's state in host memory and step there; or parameters, gradients and
    state (params, with fsdp and hsdp only)."""
    estimate: bool = False
    """Print what memory a rank takes, by category, and stop. Needs configs only: no weights, no
    shards, no GPU."""
    estimate_ranks: int | None = None
    """Ranks that the run of --estimate would have. Default: those of --nproc-per-node, or one."""
    auto_batch_size: bool = False
    """Take the largest micro-batch that fits, and accumulate so that the batch of a step stays."""
    memory_budget: float | None = None
    """GB (1e9 bytes) that a rank may take. Default: what the GPU has."""
    preflight: Literal["auto", "on", "off"] = "auto"
    """Before the data, one step of the largest batch there can be, of which nothing stays, so that
    memory runs out now or never. auto: on a GPU."""
    memory_every: int | None = None
    """Optimizer steps between measurements of memory, beside the first two steps."""

    def _check(self) -> None:
        check_least(self, 1, "estimate_ranks", "memory_every")
        if self.estimate_ranks is not None and not self.estimate:
            raise UserError("--estimate-ranks goes with --estimate; use --nproc-per-node to train")
        if self.memory_budget is not None and self.memory_budget <= 0:
            raise UserError(f"--memory-budget {self.memory_budget:g}: expected GB above 0")
        if self.auto_batch_size and self.preflight == "off":
            raise UserError("--auto-batch-size tries what it takes by a preflight; leave out off")
