"""What is done with the pretended GPU, counted.

A `Watch` is told of every operation. It counts apart, each with the line of the project (or of a
library) that asked for it:

- `mixed`: operations that take tensors of the host and of the GPU, which a real one refuses;
- `reads`: what the host reads from the device, and waits for;
- `blocking`: copies for which the host waits: not `non_blocking`, from memory that is not pinned
  and too large to be staged, or an index on the host;
- `waits`: operations whose size is known on the device alone (`nonzero`, an index by a mask,
  `unique`), and calls that wait by name (`synchronize`);
- `queued`: copies for which nobody waits;
- `attention`: calls by kind, forward and backward;
- `kernels` and `bytes`: by operation.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.flamingo.gpu import operations
from tests.flamingo.gpu.tensors import PretendedTensor, is_pretended, kind_of, run, wrap

#: Bytes from which a copy out of memory that is not pinned waits for the stream.
STAGED_BYTES = 65536
_ROOT = str(Path(__file__).resolve().parents[3]) + os.sep
_OWN = os.path.join(_ROOT, "tests", "flamingo", "gpu") + os.sep
_LIBRARIES = os.sep + "site-packages" + os.sep
_ORDINARY = (Tensor, torch.nn.Parameter, torch.nn.Buffer, PretendedTensor)


class Meter(Protocol):
    """Who wants more than counts: is called for each kernel with what is inside its tensors."""

    def kernel(self, func: Any, args: Any, kwargs: Any, found: Any) -> None:
        """An operation that is no attention."""

    def attended(
        self, kind: str, query: Tensor, key: Tensor, *, causal: bool, is_backward: bool
    ) -> None:
        """A call of attention."""


class Watch(TorchDispatchMode):
    """Counts of what was done since it was made, or since `clear`.

    Args:
        inner: where the tensors inside are: `cpu` (they have values) or `meta`.
        meta_truth: what a boolean is that is read from a tensor without values.
    """

    def __init__(self, inner: str = "cpu", *, meta_truth: bool = False) -> None:
        super().__init__()
        self.inner = torch.device(inner)
        self.meta_truth = meta_truth
        self.meter: Meter | None = None
        self._is_paused = False
        self.mixed: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()
        self.blocking: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.queued: Counter[str] = Counter()
        self.attention: Counter[str] = Counter()
        self.kernels: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        # Memory that is pinned, by its address; kept, so that no other can have that address.
        self._pinned: dict[int, Any] = {}

    @property
    def counters(self) -> dict[str, Counter[str]]:
        """All that is counted, by name."""
        names = ("mixed", "reads", "blocking", "waits", "queued", "attention", "kernels", "bytes")
        return {name: getattr(self, name) for name in names}

    def clear(self) -> None:
        """Count anew."""
        for counter in self.counters.values():
            counter.clear()

    def totals(self) -> dict[str, int]:
        """The sum of each counter."""
        return {name: counter.total() for name, counter in self.counters.items()}

    def report(self, most: int = 30) -> str:
        """For a person: every place that mixes, reads, blocks or waits, and the busiest kernels."""
        lines = []
        for name, counter in self.counters.items():
            lines.append(f"{name}: {counter.total():,}")
            lines += [f"  {number:>9,}  {what}" for what, number in counter.most_common(most)]
        return "\n".join(lines)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count no kernels and operations, for work that a GPU would not have."""
        before, self._is_paused = self._is_paused, True
        try:
            yield
        finally:
            self._is_paused = before

    wrap = staticmethod(wrap)

    # ---- pinned memory

    def pin(self, tensor: Tensor) -> Tensor:
        """Remember the memory of a host's tensor as pinned; returns the tensor."""
        storage = _own_part(tensor).untyped_storage()
        self._pinned[storage.data_ptr()] = storage
        return tensor

    def is_pinned(self, tensor: Tensor) -> bool:
        """Whether a host's tensor lies in pinned memory."""
        return _own_part(tensor).untyped_storage().data_ptr() in self._pinned

    # ---- what happens

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        leaves = list(operations.leaves_of((args, kwargs)))
        if any(_is_made_of_others(one) for one in leaves):
            return NotImplemented
        if any(map(is_pretended, leaves)) or kind_of(kwargs.get("device")) == "cuda":
            return run(self, func, args, kwargs)
        return func(*args, **kwargs)

    def before(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        on_gpu: list[Tensor],
        on_host: list[Tensor],
        target: str | None,
    ) -> None:
        """An operation is about to run.

        Args:
            func: it.
            args: of it, still wrapped.
            kwargs: likewise.
            on_gpu: the tensors among them that lie there.
            on_host: the others.
            target: kind of device that it was told to give its result on.
        """
        if self._is_paused:
            return
        name = operations.short_name(func)
        if func in operations.INDEXING:
            self._before_indexing(name, args)
        elif func is operations.TO_COPY:
            self._before_move(args[0], target, is_asked=bool(kwargs.get("non_blocking")))
        elif func is operations.COPY:
            asked = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking"))
            self._before_copy(args[0], args[1], is_asked=asked)
        elif func in operations.READS:
            self.reads[f"{name} at {asked_by()}"] += 1
        else:
            if func in operations.SIZED_BY_VALUES and on_gpu:
                self.waits[f"{name} at {asked_by()}"] += 1
            shapes = [tuple(one.shape) for one in on_host if one.dim() > 0]
            if shapes:
                self.mixed[f"{name} with the host's {shapes} at {asked_by()}"] += 1

    def _before_move(self, source: Tensor, target: str | None, *, is_asked: bool) -> None:
        if is_pretended(source) and target == "cpu":
            self._down(source, is_queued=is_asked)  # torch pins what it copies to
        elif not is_pretended(source) and target == "cuda":
            self.up(source, is_asked=is_asked)

    def _before_copy(self, to: Tensor, source: Tensor, *, is_asked: bool) -> None:
        if is_pretended(to) and not is_pretended(source):
            self.up(source, is_asked=is_asked)
        elif is_pretended(source) and not is_pretended(to):
            self._down(source, is_queued=is_asked and self.is_pinned(to))

    def _before_indexing(self, name: str, args: tuple[Any, ...]) -> None:
        indices = [one for one in args[1] if isinstance(one, Tensor)]
        if not is_pretended(args[0]):
            return
        if any(is_pretended(one) and one.dtype in (torch.bool, torch.uint8) for one in indices):
            self.waits[f"{name} by a mask at {asked_by()}"] += 1
        if any(not is_pretended(one) for one in indices):
            self.blocking[f"{name} by an index on the host at {asked_by()}"] += 1

    def up(self, source: Tensor, *, is_asked: bool) -> None:
        """A copy from the host to the device; `is_asked`: with `non_blocking`."""
        what = f"{tuple(source.shape)} {_short(source.dtype)}"
        is_small = source.numel() * source.element_size() < STAGED_BYTES
        if not is_asked:
            self.blocking[f"{what} up at {asked_by()}"] += 1
        elif self.is_pinned(source) or is_small:
            self.queued[f"{what} up at {asked_by()}"] += 1
        else:
            self.blocking[f"{what} up, not pinned, at {asked_by()}"] += 1

    def _down(self, source: Tensor, *, is_queued: bool) -> None:
        what = f"{tuple(source.shape)} {_short(source.dtype)} down at {asked_by()}"
        (self.queued if is_queued else self.reads)[what] += 1

    def after(self, func: Any, args: Any, kwargs: Any, found: Any) -> None:
        """An operation of the GPU has run; what is given lies inside its tensors."""
        name = operations.short_name(func)
        if self._is_paused or name in operations.NO_KERNEL:
            return
        tensors = [
            one for one in operations.leaves_of((args, kwargs, found)) if isinstance(one, Tensor)
        ]
        self.kernels[name] += 1
        self.bytes[name] += operations.moved_bytes(tensors)
        if self.meter is not None:
            self.meter.kernel(func, args, kwargs, found)

    def attended(
        self, kind: str, query: Tensor, key: Tensor, *, causal: bool, is_backward: bool = False
    ) -> None:
        """A call of attention, which is one kernel."""
        way = "backward" if is_backward else "forward"
        self.attention[f"{kind} {way}"] += 1
        self.kernels[f"attention {way}"] += 1
        self.bytes[f"attention {way}"] += 2 * operations.moved_bytes([query, key])
        if self.meter is not None:
            self.meter.attended(kind, query, key, causal=causal, is_backward=is_backward)


def _is_made_of_others(value: Any) -> bool:
    """Whether it is over tensors of its own (a DTensor, 4-bit weights), and so acts first."""
    return (
        isinstance(value, Tensor)
        and type(value) not in _ORDINARY
        and hasattr(type(value), "__tensor_flatten__")
    )


def _own_part(tensor: Tensor) -> Tensor:
    """A tensor that is spread over ranks as it lies here; any other as it is."""
    return getattr(tensor, "_local_tensor", tensor)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _is_own(path: str) -> bool:
    """Whether it is a module of the pretended GPU, which asks for nothing by itself."""
    return path.startswith(_OWN) and not os.path.basename(path).startswith("test_")


def asked_by() -> str:
    """The innermost line of the project, behind it the one of a library that it called."""
    frame: Any = sys._getframe(1)
    library = ""
    while frame is not None:
        path = frame.f_code.co_filename
        if _LIBRARIES in path:
            name = path.rpartition(_LIBRARIES)[2]
            if not library and not name.startswith("torch" + os.sep):
                library = f"{name}:{frame.f_lineno}"
        elif path.startswith(_ROOT) and not _is_own(path):
            place = f"{path.removeprefix(_ROOT)}:{frame.f_lineno}"
            return f"{place} ({library})" if library else place
        frame = frame.f_back
    return library or "a backward pass or a library"
