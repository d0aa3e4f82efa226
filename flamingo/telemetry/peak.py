"""Peak arithmetic of GPUs by their name, for the share of it that a model uses (MFU).

Dense figures of the vendor's data sheets, without sparsity, at the boost clock. A name that is not
here gives no MFU instead of a wrong one; a MIG slice is a part of its board that the name does not
tell, so it gives none either.
"""

import re
from typing import Literal

Compute = Literal["fp32", "half"]

#: Pattern in the board's name -> TFLOP/s of (fp32 without tensor cores, bf16 or fp16 on them).
#: The first that matches counts, so that what is more special stands first.
_PEAKS: tuple[tuple[str, float, float], ...] = (
    (r"\bGB200\b|\bB200\b", 80.0, 2250.0),
    (r"\bB100\b", 60.0, 1750.0),
    (r"\bH200 NVL\b", 60.0, 835.0),
    (r"\bH200\b|\bGH200\b", 67.0, 989.0),
    (r"\bH100 PCIe\b", 51.0, 756.0),
    (r"\bH100 NVL\b", 60.0, 835.0),
    (r"\bH100\b", 67.0, 989.0),
    (r"\bH800\b", 67.0, 989.0),
    (r"\bH20\b", 44.0, 148.0),
    (r"\bA100\b|\bA800\b", 19.5, 312.0),
    (r"\bA40\b", 37.4, 149.7),
    (r"\bA30\b", 10.3, 165.0),
    (r"\bA10G\b", 35.0, 70.0),
    (r"\bA10\b", 31.2, 125.0),
    (r"\bL40S\b", 91.6, 362.0),
    (r"\bL40\b", 90.5, 181.0),
    (r"\bL4\b", 30.3, 121.0),
    (r"\bRTX A6000\b", 38.7, 154.8),
    (r"\bRTX 6000 Ada\b", 91.1, 364.2),
    (r"\bRTX 4090\b", 82.6, 165.2),
    (r"\bRTX 3090\b", 35.6, 71.0),
    (r"\bV100\b", 15.7, 125.0),
    (r"\bT4\b", 8.1, 65.0),
)


def peak_flops(name: str, compute: Compute) -> float | None:
    """FLOP/s of a board; None for one that is not known.

    Args:
        name: as CUDA or NVML gives it: `NVIDIA H100 80GB HBM3`.
        compute: `half` is bf16 and fp16, which tensor cores take at the same speed.
    """
    if "MIG" in name:
        return None
    for pattern, fp32, half in _PEAKS:
        if re.search(pattern, name):
            return (half if compute == "half" else fp32) * 1e12
    return None
