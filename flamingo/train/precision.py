"""Which numbers are kept in which type, and the loss scale of fp16.

Mixed precision is autocast, however the model is spread: matrix products and attention in bf16 or
fp16, softmax and the loss in fp32. Frozen weights are stored in the type that they would be cast to
anyway, which halves them and saves the cast, and in bf16 frozen parts need no autocast at all
(`modules/compute.py`); what trains is stored in fp32. Under FSDP blocks are gathered as they are
stored, without a policy of its own that would cast them: the numbers then are the same under DDP
and FSDP, and the price is that the parts that train travel in fp32.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from flamingo.models.family import Types
from flamingo.options.run import RunOptions

#: Steps without an overflow after which the scale of the loss is doubled.
GROWTH_STEPS = 2000
FIRST_SCALE = 2.0**16


_MIXED_BF16 = Types(torch.bfloat16, torch.float32, torch.bfloat16)
TYPES: dict[str, Types] = {
    "fp32": Types(torch.float32, torch.float32),
    "bf16-mixed": _MIXED_BF16,
    "amp_bf16": _MIXED_BF16,
    "amp_bfloat16": _MIXED_BF16,
    "bf16": Types(torch.bfloat16, torch.bfloat16),
    "fp16-mixed": Types(torch.float16, torch.float32, torch.float16),
}


def autocast(options: RunOptions, device: torch.device) -> AbstractContextManager[object]:
    """Around a forward pass."""
    compute = TYPES[options.precision].compute
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
        if TYPES[options.precision].compute is torch.float16:
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
