"""A pretended GPU: tensors that say `cuda` over tensors of the host, and counts of what is done.

    from tests.flamingo.gpu import pretended_gpu

    with pretended_gpu() as watch:
        model.to("cuda")
        watch.clear()
        model.loss(batch, torch.device("cuda")).backward()
    assert not watch.mixed and not watch.blocking and not watch.waits and not watch.reads
    print(watch.report())

While it lasts `torch.cuda` says that there is an H100, and the values are those that the CPU
computes. `Watch` (`watch.py`) has a counter of each kind, whose keys name the operation and the
line that asked for it: `mixed` (devices), `reads` (from the device), `blocking` (copies that the
host waits for), `waits` (`nonzero`, an index by a mask, `unique`, `synchronize`), `queued` (copies
that nobody waits for), `attention` (calls by kind: flash, efficient, masked, math, varlen),
`kernels` and `bytes` by operation. `Watch("meta")` has tensors without values, for a model of any
size.

Backward passes need a compiled shim (`shim.py`), which a process has to be started with. Without
it, as in a plain `pytest`, `backward()` gives each parameter in the graph a made-up gradient, and
all but the backward pass is seen; `has_shim()` tells which. Tests that need it start a process of
their own (`shim.rerun`) and are marked `matrix`.

For a look at a whole step of `mmdata train`, with any of its options, backward pass included:

    python -m tests.flamingo.gpu.step --precision bf16-mixed --pack

What it cannot tell: how long anything takes (`benchmarks/gpu_model.py` works that out), whether the
host is ahead, and anything of NCCL, of memory and of compiled code. A copy counts as blocking if it
is not `non_blocking`, or comes from memory that is not pinned and has 64 KiB or more; events and
streams do nothing, but `synchronize` counts as a wait.
"""

from tests.flamingo.gpu.device import has_shim, pretended_gpu
from tests.flamingo.gpu.watch import Watch

__all__ = ["Watch", "has_shim", "pretended_gpu"]
