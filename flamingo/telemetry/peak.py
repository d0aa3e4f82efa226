"""Peak arithmetic of GPUs by their name, for the share of it that a model uses (MFU).

Dense figures of the vendor's data sheets, without sparsity, at the boost clock; a sheet that gives
sparse ones alone (Hopper and newer) is halved. A name that is not here gives no MFU instead of a
wrong one, and the run says so at its start. A slice of a board (MIG, or a virtual GPU) is a part
that its name does not tell, so it has none either.
"""

import re
from typing import Literal, NamedTuple

Compute = Literal["fp32", "tf32", "half"]


class _Board(NamedTuple):
    """A kind of GPU.

    Attributes:
        pattern: in its name, as the driver gives it.
        fp32: TFLOP/s outside of tensor cores.
        half: TFLOP/s of bf16 or fp16 on tensor cores; TF32 goes half as fast on all that have it.
        has_tf32: those from Ampere on do.
    """

    pattern: str
    fp32: float
    half: float
    has_tf32: bool = True


#: The first that matches counts, so that what is more special stands first. Before each its source,
#: a data sheet of NVIDIA's by its title, with what makes its figure a dense one of one GPU.
_BOARDS: tuple[_Board, ...] = (
    # GB300 NVL72 data sheet: 360 PFLOPS of bf16 with sparsity on 72 GPUs.
    _Board(r"\bGB300\b", 80.0, 2500.0),
    # HGX B300 data sheet: 36 PFLOPS of bf16 with sparsity, 600 TFLOPS of fp32, on 8 GPUs.
    _Board(r"\bB300\b", 75.0, 2250.0),
    # GB200 NVL72 data sheet: 360 PFLOPS of bf16 with sparsity, 5,760 TFLOPS of fp32, on 72 GPUs.
    _Board(r"\bGB200\b", 80.0, 2500.0),
    # HGX B200 data sheet: 36 PFLOPS of bf16 with sparsity, 600 TFLOPS of fp32, on 8 GPUs.
    _Board(r"\bB200\b", 75.0, 2250.0),
    # Blackwell architecture technical brief, HGX B100: 3.5 PFLOPS of bf16 with sparsity a GPU.
    _Board(r"\bB100\b", 60.0, 1750.0),
    # H200 data sheet, NVL: 1,671 TFLOPS of bf16 with sparsity.
    _Board(r"\bH200 NVL\b", 60.0, 835.0),
    # H200 data sheet, SXM; GH200 data sheet: 1,979 TFLOPS of bf16 with sparsity.
    _Board(r"\bH200\b|\bGH200\b", 67.0, 989.0),
    # H100 PCIe product brief: 1,513 TFLOPS of bf16 with sparsity.
    _Board(r"\bH100 PCIe\b", 51.0, 756.0),
    # H100 data sheet, NVL, one of the two boards: 1,671 TFLOPS of bf16 with sparsity.
    _Board(r"\bH100 NVL\b", 60.0, 835.0),
    # H100 data sheet, SXM: 1,979 TFLOPS of bf16 with sparsity.
    _Board(r"\bH100\b", 67.0, 989.0),
    # H800 data sheet: compute as H100 SXM, less of NVLink and fp64.
    _Board(r"\bH800\b", 67.0, 989.0),
    # H20 data sheet: 148 TFLOPS of bf16, dense.
    _Board(r"\bH20\b", 44.0, 148.0),
    # A100 data sheet, PCIe and SXM alike: 312 TFLOPS of bf16, dense; A800: less of NVLink alone.
    _Board(r"\bA100\b|\bA800\b", 19.5, 312.0),
    # A40 data sheet: 149.7 TFLOPS of bf16, dense.
    _Board(r"\bA40\b", 37.4, 149.7),
    # A30 data sheet: 165 TFLOPS of bf16, dense.
    _Board(r"\bA30\b", 10.3, 165.0),
    # A10G data sheet (the cloud's form of A10): 70 TFLOPS of bf16, dense.
    _Board(r"\bA10G\b", 35.0, 70.0),
    # A10 data sheet: 125 TFLOPS of bf16, dense.
    _Board(r"\bA10\b", 31.2, 125.0),
    # L40S data sheet: 362.05 TFLOPS of bf16, dense.
    _Board(r"\bL40S\b", 91.6, 362.0),
    # L40 data sheet: 181.05 TFLOPS of bf16, dense.
    _Board(r"\bL40\b", 90.5, 181.0),
    # L4 data sheet: 242 TFLOPS of bf16 with sparsity.
    _Board(r"\bL4\b", 30.3, 121.0),
    # RTX A6000: Ampere GA102 architecture paper, 154.8 TFLOPS of bf16 with fp32 sums, dense.
    _Board(r"\bRTX A6000\b", 38.7, 154.8),
    # RTX 6000 Ada: Ada architecture paper for professionals, 364.2 TFLOPS of bf16, dense.
    _Board(r"\bRTX 6000 Ada\b", 91.1, 364.2),
    # RTX 4090: Ada architecture paper, 165.2 TFLOPS of bf16 with fp32 sums, dense.
    _Board(r"\bRTX 4090\b", 82.6, 165.2),
    # RTX 3090: Ampere GA102 architecture paper, 71 TFLOPS of bf16 with fp32 sums, dense.
    _Board(r"\bRTX 3090\b", 35.6, 71.0),
    # V100 data sheet, SXM2: 125 TFLOPS of fp16.
    _Board(r"\bV100\b", 15.7, 125.0, has_tf32=False),
    # T4 data sheet: 65 TFLOPS of fp16.
    _Board(r"\bT4\b", 8.1, 65.0, has_tf32=False),
)
#: A part of a board: `NVIDIA A100-SXM4-40GB MIG 1g.5gb`, `GRID A100-10C`.
_SLICE = re.compile(r"\bMIG\b|\bGRID\b|-\d+[ABCQ]\b")


def peak_flops(name: str, compute: Compute) -> float | None:
    """FLOP/s of a board; None for one that is not known.

    Args:
        name: as CUDA or NVML gives it: `NVIDIA H100 80GB HBM3`.
        compute: what matrix products are computed in. `half` is bf16 and fp16, which tensor cores
            take at the same speed; `tf32` is fp32 with its products on them, where there are such.
    """
    if _SLICE.search(name):
        return None
    for board in _BOARDS:
        if re.search(board.pattern, name):
            if compute == "half":
                return board.half * 1e12
            if compute == "tf32" and board.has_tf32:
                return board.half / 2 * 1e12
            return board.fp32 * 1e12
    return None
