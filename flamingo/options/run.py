"""What `mmdata train` can be told; OpenFlamingo's names where it has one.

Only the standard library is imported here, so that the command line shows its help without
loading torch. OpenFlamingo's flags that make no sense here are in `REFUSED`, each with what to use
instead; they paste in and get an answer, not a stack of usage text.
"""

from dataclasses import dataclass
from typing import ClassVar

from flamingo.options.combinations import check_combinations
from flamingo.options.sections import TrainSections
from flamingo.options.streams import check_streams

#: OpenFlamingo's flags (and values) that are not taken -> what to do instead.
REFUSED: dict[str, str] = {
    "horovod": "was never functional in OpenFlamingo; use --nproc-per-node, torchrun or srun",
    "fsdp": "use --parallel fsdp",
    "fsdp_use_orig_params": "is always so with --parallel fsdp; leave it out",
    "fsdp_sharding_strategy": "use --parallel fsdp for full, --parallel hsdp for hybrid",
    "dist_url": "use --rdzv-endpoint HOST:PORT, or MASTER_ADDR and MASTER_PORT",
    "dist_backend": "is nccl on GPUs and gloo on CPUs; leave it out",
    "no_set_device_rank": "a rank takes the GPU of its LOCAL_RANK; leave it out",
    "save_checkpoints_to_wandb": "checkpoints are folders under --run-name; copy them",
}


@dataclass(frozen=True, kw_only=True)
class RunOptions(TrainSections):
    """What a run can be told, whatever it trains; the section of its model is the family's own.

    Attributes:
        family: of the model.
    """

    family: ClassVar[str]
    section: ClassVar[str] = "Run"

    run_name: str
    """Folder of the run: logs and checkpoints. A run that is there already is resumed."""
    seed: int = 42
    """Seed of initial values, order and coins."""
    dry_run: bool = False
    """Write the first batches as an HTML page to the run's folder, and stop."""
    offline: bool = False
    """Use no network at all, not for the vision tower either."""

    def _check(self) -> None:
        check_streams(self)
        check_combinations(self)

    def extras(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """What these options need beside the trainer's own packages.

        Returns:
            (extra of the project, the option that needs it, packages) of each.
        """
        return []
