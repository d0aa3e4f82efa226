"""What a run can be told of the machines it is on; the standard library only."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from mmdata.option_checks import Options, check_least

Precision = Literal["fp32", "bf16-mixed", "bf16", "fp16-mixed", "amp_bf16", "amp_bfloat16"]
MatmulPrecision = Literal["highest", "high", "medium"]


@dataclass(frozen=True, kw_only=True)
class HardwareOptions(Options):
    """Devices and their number formats, and the ranks that train together."""

    section: ClassVar[str] = "Hardware and ranks"

    device: str = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""
    precision: Precision | None = None
    """Default: bf16-mixed on a GPU, fp32 on a CPU; a run that goes on keeps its own. bf16-mixed
    (OpenFlamingo's amp_bf16): compute and frozen weights in bf16, fp32 what trains. bf16:
    everything, the optimizer's state too. fp16-mixed: like bf16-mixed, with a loss scale."""
    fp32_matmul: MatmulPrecision | None = None
    """How fp32 matrices are multiplied (torch's names): high lets a GPU use TF32, highest does not.
    Default: high with --precision fp32 on a GPU; a run that goes on keeps its own."""
    compile: bool = False
    """Compile each block (torch.compile), for ragged batches; the first step takes minutes."""
    nproc_per_node: str | None = None
    """Start so many ranks here: a number, gpu (one a GPU) or auto. Not under torchrun or srun."""
    parallel: Literal["auto", "ddp", "fsdp", "hsdp"] = "auto"
    """The model whole on each rank, sharded over all ranks, or over those of a host. auto: ddp."""
    shard_ranks: int | None = None
    """Ranks that share one copy of the model with --parallel hsdp. Default: those of a host."""
    nnodes: str = "1"
    """Nodes that this command runs on with --nproc-per-node, or LEAST:MOST."""
    rdzv_endpoint: str | None = None
    """host:port of one of the nodes, the same on each, where --nnodes meet."""
    max_restarts: int = 0
    """Times that --nproc-per-node starts all ranks again, from the last save, after one failed."""
    dist_timeout: float = 600.0
    """Seconds that ranks wait for each other before the run stops."""

    def _check(self) -> None:
        check_least(self, 1, "shard_ranks", "dist_timeout")
        check_least(self, 0, "max_restarts")
