"""Which numbers are kept in which type, and the loss scale of fp16.

Mixed precision is autocast, however the model is spread: matrix products and attention in bf16 or
fp16, softmax and the loss in fp32. Frozen weights are stored in the type that they would be cast to
anyway, which halves them and saves the cast, and in bf16 frozen parts need no autocast at all
(`modules/compute.py`); what trains is stored in fp32. Under FSDP blocks are gathered as they are
stored, without a policy of its own that would cast them: the numbers then are the same under DDP
and FSDP, and the price is that the parts that train travel in fp32.

What the options leave open is settled once, when the device and the run to go on with are known
(`settle`): bf16-mixed on a GPU, and TF32 for fp32 there. These two are where OpenFlamingo's flags
do not give OpenFlamingo's result, and a run says so at its start.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from flamingo.models.family import Types
from flamingo.options.run import RunOptions

#: Steps without an overflow after which the scale of the loss is doubled.
GROWTH_STEPS = 2000
FIRST_SCALE = 2.0**16


#: What a CPU takes, and a GPU without bf16.
PLAIN = "fp32"
_OF_A_GPU = "bf16-mixed"

_MIXED_BF16 = Types(torch.bfloat16, torch.float32, torch.bfloat16)
TYPES: dict[str, Types] = {
    "fp32": Types(torch.float32, torch.float32),
    "bf16-mixed": _MIXED_BF16,
    "amp_bf16": _MIXED_BF16,
    "amp_bfloat16": _MIXED_BF16,
    "bf16": Types(torch.bfloat16, torch.bfloat16),
    "fp16-mixed": Types(torch.float16, torch.float32, torch.float16),
}


def types_of(options: RunOptions) -> Types:
    """The types of a run; those of a CPU where its options leave them open."""
    return TYPES[options.precision or PLAIN]


def default_precision(device: torch.device) -> str:
    """What a new run takes on a device, which need not be here; one without bf16 takes fp32."""
    if device.type != "cuda":
        return PLAIN
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        return PLAIN
    return _OF_A_GPU


def settle(
    options: RunOptions, device: torch.device, before: Mapping[str, Any] | None = None
) -> tuple[RunOptions, list[str]]:
    """The options with their precision, and what a person should know of it.

    Args:
        options: of the run.
        device: that it computes on.
        before: options of the run that goes on; None for a fresh one. What they do not have yet
            was as it is without TF32.

    Returns:
        (options, lines; none where the run does as OpenFlamingo does, or as its options say).
    """
    usual, kept = default_precision(device), (before or {}).get("precision")
    precision: Any = options.precision or kept or usual
    matmul = options.fp32_matmul
    on_gpu = device.type == "cuda"
    if matmul is None and on_gpu and precision == PLAIN:
        matmul = "high" if before is None else before.get("fp32_matmul") or "highest"
    said = []
    if options.precision is None and precision != usual:
        said.append(f"precision: {precision}, as this run began; a new one would take {usual}")
    elif options.precision is None and precision != PLAIN:
        said.append(
            f"precision: {precision}, the default on a GPU; OpenFlamingo's is --precision {PLAIN}"
        )
    if on_gpu and matmul in ("high", "medium"):
        said.append(
            f"fp32 matrix products: {matmul}, by TF32 where the GPU has it; in full with "
            "--fp32-matmul highest, as in OpenFlamingo"
        )
    return dataclasses.replace(options, precision=precision, fp32_matmul=matmul), said


@contextmanager
def fp32_matmul(options: RunOptions) -> Iterator[None]:
    """Multiply fp32 matrices as the options say, if they do, for as long as this lasts."""
    before = torch.get_float32_matmul_precision()
    if options.fp32_matmul is not None:
        torch.set_float32_matmul_precision(options.fp32_matmul)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def autocast(options: RunOptions, device: torch.device) -> AbstractContextManager[object]:
    """Around a forward pass."""
    compute = types_of(options).compute
    return nullcontext() if compute is None else torch.autocast(device.type, dtype=compute)


@dataclass(slots=True)
class LossScale:
    """A factor that keeps fp16 gradients from vanishing; 1 and constant in any other precision.

    What overflowed is told by the norm of the whole gradient, which every rank knows: the ranks
    agree on the factor without asking each other. A step that overflowed is skipped as one that is
    not finite, and counted as such.

    Attributes:
        value: that the loss is multiplied with.
        good_steps: without an overflow since it last changed.
        is_constant: whether nothing changes it.
    """

    value: float = 1.0
    good_steps: int = 0
    is_constant: bool = True

    @classmethod
    def of(cls, options: RunOptions) -> "LossScale":
        """The one to begin with."""
        if types_of(options).compute is torch.float16:
            return cls(FIRST_SCALE, is_constant=False)
        return cls()

    def update(self, *, finite: bool) -> None:
        """Halve it after a step that overflowed, double it after many that did not."""
        if self.is_constant:
            return
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.value /= 2
        elif self.good_steps == GROWTH_STEPS:
            self.value, self.good_steps = self.value * 2, 0

    def record(self) -> dict[str, float]:
        """For a checkpoint; empty where it is constant."""
        return {} if self.is_constant else {"value": self.value, "good_steps": self.good_steps}

    def resume(self, record: dict[str, float]) -> None:
        """Go on from a checkpoint's; one of another precision says nothing."""
        if record and not self.is_constant:
            self.value, self.good_steps = record["value"], int(record["good_steps"])
