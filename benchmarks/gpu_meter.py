"""How long the kernels of a step would take on a GPU, worked out from what each reads and computes.

A kernel takes as long as the slower of its arithmetic and its memory, at rates that good kernels
reach (not at the data sheet's). Times are right to about a quarter; counts are exact. `Meter` is
told of each kernel by the pretended GPU and adds up, by kind of work, part of the model and
direction.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from flamingo.models.family import TrainableModel
from tests.flamingo.gpu.operations import moved_bytes, short_name

Direction = Literal["forward", "backward", "optimizer"]
_HALF = (torch.bfloat16, torch.float16)
#: Matrix products by name: where in the arguments the factors are.
_PRODUCTS = {"mm": (0, 1), "addmm": (1, 2), "bmm": (0, 1), "baddbmm": (1, 2)}
#: Write what they are given into some rows; the rest stays where it is.
_WRITE_ROWS = frozenset({"index_copy_", "index_put_", "index_fill_", "index_add_"})
_READ_ROWS = frozenset({"embedding", "index_select"})


@dataclass(frozen=True, slots=True)
class Rates:
    """What kernels of a GPU reach.

    Attributes:
        name: of the GPU.
        peak: FLOP/s of the data sheet in bf16, dense; what MFU is a share of.
        half: FLOP/s of matrix products in bf16 or fp16.
        single: FLOP/s of matrix products in fp32, TF32 left out.
        memory: bytes/s of elementwise kernels.
        flash: FLOP/s of attention without a mask, forward.
        flash_backward: likewise backward.
        masked: FLOP/s of attention with a mask, forward.
        masked_backward: likewise backward.
        attention_memory: bytes/s of attention.
    """

    name: str
    peak: float
    half: float
    single: float
    memory: float
    flash: float
    flash_backward: float
    masked: float
    masked_backward: float
    attention_memory: float

    def scaled(
        self, name: str, *, peak: float, single: float, memory: float, attention: float
    ) -> "Rates":
        """Another GPU, whose kernels reach the same shares of its figures."""
        arithmetic = peak / self.peak
        return Rates(
            name=name,
            peak=peak,
            half=self.half * arithmetic,
            single=self.single * single,
            memory=self.memory * memory,
            flash=self.flash * attention,
            flash_backward=self.flash_backward * attention,
            masked=self.masked * attention,
            masked_backward=self.masked_backward * attention,
            attention_memory=self.attention_memory * memory,
        )


#: H100 SXM: data sheet 989 TFLOP/s dense and 3.35 TB/s.
H100 = Rates(
    name="H100",
    peak=989e12,
    half=650e12,
    single=50e12,
    memory=2.8e12,
    flash=250e12,
    flash_backward=180e12,
    masked=130e12,
    masked_backward=80e12,
    attention_memory=2.5e12,
)
GPUS: dict[str, Rates] = {
    "H100": H100,
    # H200 data sheet, SXM: arithmetic of the H100 SXM, memory of 4.8 TB/s.
    "H200": H100.scaled("H200", peak=989e12, single=1.0, memory=4.8 / 3.35, attention=1.0),
    # A100 data sheet, SXM 80 GB: 312 TFLOP/s of bf16, 19.5 of fp32 (H100: 67), 2.039 TB/s. The
    # same attention kernels reach 225 TFLOP/s on an A100 and 335 on an H100: FlashAttention-2
    # (Dao 2023), section 4.1.
    "A100": H100.scaled(
        "A100", peak=312e12, single=19.5 / 67, memory=2.039 / 3.35, attention=225 / 335
    ),
}


class _Key(NamedTuple):
    """What a kernel is counted under."""

    kind: str
    part: str
    direction: Direction


class _Work(NamedTuple):
    """What a kernel does; its time follows from the rates of a GPU.

    Attributes:
        flops: of it.
        bytes: that it reads and writes.
        rate: the name of the rate of its arithmetic; None: it is bound by memory.
        memory: the name of the rate of its memory.
    """

    flops: float
    bytes: float
    rate: str | None
    memory: str = "memory"

    def seconds(self, gpu: Rates) -> float:
        """On a GPU."""
        moved = self.bytes / getattr(gpu, self.memory)
        return moved if self.rate is None else max(self.flops / getattr(gpu, self.rate), moved)


class Meter:
    """Adds up the kernels that a watch sees.

    Args:
        document_pairs: pairs of positions that attend to each other in a call of attention over
            documents of varying length, by how many positions it has; their lengths are values,
            which tensors without values do not have.

    Attributes:
        kernels: how many, by kind, part and direction.
        operations: bytes of elementwise work by operation and direction.
    """

    def __init__(self, document_pairs: Callable[[int], float] | None = None) -> None:
        self.kernels: Counter[_Key] = Counter()
        self.operations: Counter[tuple[str, str, str]] = Counter()
        self.is_stepping = False
        self._document_pairs = document_pairs
        self._work: list[tuple[_Key, _Work]] = []
        self._inside: list[str] = []
        self._backward_part = "else"

    # ---- what the watch tells

    def kernel(self, func: Any, args: Any, kwargs: Any, found: Any) -> None:
        """A kernel that is no attention; its tensors have shapes alone."""
        name = short_name(func)
        if self.is_stepping and name == "zeros_like":
            return  # the optimizer's state, which is made once
        outs = [one for one in tree_leaves(found) if isinstance(one, Tensor)]
        ins = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        if name in _PRODUCTS or name.startswith("convolution"):
            is_half = ins[-1].dtype in _HALF
            work = _Work(
                _product_flops(name, args, outs),
                moved_bytes(ins) + moved_bytes(outs),
                "half" if is_half else "single",
            )
            self._add("matmul" if is_half else "matmul fp32", work)
            return
        count = moved_bytes(ins) + moved_bytes(outs)
        if name in _WRITE_ROWS:
            count = 2 * moved_bytes(ins[1:])
        elif name in _READ_ROWS:
            count = 2 * moved_bytes(outs)
        dtype = str(outs[0].dtype).removeprefix("torch.") if outs else ""
        self.operations[name, dtype, self._direction] += count
        self._add("elementwise", _Work(0.0, count, None))

    def attended(
        self, kind: str, query: Tensor, key: Tensor, *, causal: bool, is_backward: bool
    ) -> None:
        """A call of attention: (B, heads, L, width), or (tokens, heads, width) of documents."""
        width = query.shape[-1]
        if kind == "varlen":
            if self._document_pairs is None:
                raise ValueError("document_pairs: expected for attention over documents")
            pairs = self._document_pairs(query.shape[0]) * query.shape[1]
        else:
            pairs = float(math.prod(query.shape[:-1])) * key.shape[-2]
        flops = 4.0 * pairs * width * (0.5 if causal else 1.0)
        moved = 2.0 * (_bytes(query) + _bytes(key))
        rate = "masked" if kind in ("masked", "math") else "flash"
        if is_backward:
            flops, moved, rate = 2.5 * flops, 2 * moved, f"{rate}_backward"
        self._add(f"attention {kind}", _Work(flops, moved, rate, "attention_memory"))

    def _add(self, kind: str, work: _Work) -> None:
        direction = self._direction
        part = self._inside[-1] if self._inside else "else"
        if direction == "backward" and not self._inside:
            part = self._backward_part
        elif direction == "optimizer":
            part = "optimizer"
        key = _Key(kind, part, direction)
        self.kernels[key] += 1
        self._work.append((key, work))

    @property
    def _direction(self) -> Direction:
        if torch._C._current_graph_task_id() != -1:
            return "backward"
        return "optimizer" if self.is_stepping else "forward"

    # ---- where in the model

    def label(self, model: TrainableModel) -> None:
        """Have the parts of a model say when they run, forward and backward."""
        for part in model.parts():
            self._hook(part.module, part.label)
        self._hook(model.head(), "head")

    def _hook(self, module: nn.Module, label: str) -> None:
        def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            for one in tree_leaves((args, kwargs)):
                if isinstance(one, Tensor) and one.requires_grad:
                    one.register_hook(lambda _: self._backward_out(label))
                    break
            self._inside.append(label)

        def leave(_module: nn.Module, _args: Any, _kwargs: Any, found: Any) -> None:
            self._inside.pop()
            for one in tree_leaves(found):
                if isinstance(one, Tensor) and one.requires_grad:
                    one.register_hook(lambda _: self._backward_in(label))
                    break

        module.register_forward_pre_hook(enter, with_kwargs=True)
        module.register_forward_hook(leave, with_kwargs=True)

    def _backward_in(self, label: str) -> None:
        self._backward_part = label

    def _backward_out(self, label: str) -> None:
        if self._backward_part == label:  # else the part before it has begun
            self._backward_part = "else"

    # ---- what came of it

    @property
    def num_kernels(self) -> int:
        """In all."""
        return self.kernels.total()

    def seconds(self, gpu: Rates) -> dict[_Key, float]:
        """The time of all kernels, by kind, part and direction."""
        found: dict[_Key, float] = {}
        for key, work in self._work:
            found[key] = found.get(key, 0.0) + work.seconds(gpu)
        return found

    @property
    def flops(self) -> float:
        """Of matrix products and attention."""
        return sum(work.flops for _, work in self._work)

    @property
    def bytes(self) -> float:
        """Read and written by all kernels."""
        return sum(work.bytes for _, work in self._work)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _product_flops(name: str, args: Any, outs: list[Tensor]) -> float:
    """2 for each multiplication; a convolution's backward pass is not counted."""
    if name in _PRODUCTS:
        first, second = (args[place] for place in _PRODUCTS[name])
        return 2.0 * math.prod(first.shape) * second.shape[-1]
    if name == "convolution":
        return 2.0 * outs[0].numel() * math.prod(args[1].shape[1:])
    return 0.0
