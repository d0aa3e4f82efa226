"""Which memory is alive while code runs, by the part of the model that made it.

Every operation is seen on its way to the kernels, and each piece of memory that comes out of it is
counted once, until the last tensor on it is gone. Works on fake tensors, which have sizes and no
values, as on real ones. It costs some 50 microseconds an operation, so it is for a step now and
then.
"""

import weakref
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flamingo.models.family import TrainableModel
from flamingo.modules.placement import local_part

#: Made where no part of the model runs: before the head, behind it, after the forward pass.
ELSEWHERE = "embeddings and masks"
BACKWARD = "backward pass"
GRADIENTS = "gradients"
HEAD = "logits and loss"


class LiveMemory(TorchDispatchMode):
    """Bytes alive by label, of what was made while this is entered.

    Attributes:
        now: by label.
        peak: by label, when their sum was largest.
        peak_without: by label, when the sum of all but gradients was largest.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it so
        self.now: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.peak_without: Counter[str] = Counter()
        self._labels = [ELSEWHERE]
        self._alive: dict[int, tuple[Any, str, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, Tensor):
                self.see(one)
        return out

    def see(self, tensor: Tensor, label: str | None = None) -> None:
        """Count the memory behind a tensor, if it is not counted yet."""
        if storage_key(tensor) not in self._alive:
            self.relabel(tensor, label or self._labels[-1])

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        """Not to be counted, made here or not: parameters, say."""
        for one in tensors:
            self.relabel(one, None)

    def relabel(self, tensor: Tensor, label: str | None) -> None:
        """Count the memory behind a tensor under another label; None: under none any more."""
        storage, key = local_storage(tensor), storage_key(tensor)
        if key in self._alive:
            self._forget(key)
        gone = weakref.ref(storage, lambda _: self._forget(key))
        self._alive[key] = (gone, label or "", 0 if label is None else storage.nbytes())
        if label is not None:
            self._add(label, storage.nbytes())

    def beside(self, keys: Collection[int]) -> int:
        """Bytes alive of all memory but some, which are given by `storage_key`."""
        return sum(size for key, (_, _, size) in self._alive.items() if key not in keys)

    def rest_is(self, label: str) -> None:
        """What is made outside all parts from now on."""
        self._labels[0] = label

    def enter(self, label: str) -> None:
        """What is made from now on belongs to this part."""
        self._labels.append(label)

    def leave(self) -> None:
        """Back to what was before."""
        self._labels.pop()

    def _add(self, label: str, num_bytes: int) -> None:
        self.now[label] += num_bytes
        if self.now.total() > self.peak.total():
            self.peak = Counter(self.now)
        rest = self.now.total() - self.now[GRADIENTS]
        if rest > self.peak_without.total():
            self.peak_without = Counter(self.now)
            del self.peak_without[GRADIENTS]

    def _forget(self, key: int) -> None:
        _, label, num_bytes = self._alive.pop(key)
        self.now[label] -= num_bytes


def storage_key(tensor: Tensor) -> int:
    """Equal for tensors on the same memory, while it lives."""
    return int(local_storage(tensor)._cdata)


def local_storage(tensor: Tensor) -> Any:
    """The memory behind a tensor; of one that is spread over ranks, behind what lies here."""
    with torch.no_grad():
        return local_part(tensor).untyped_storage()


@contextmanager
def labelled(live: LiveMemory, model: TrainableModel) -> Iterator[None]:
    """While this lasts, what the parts of a model make is counted under their names.

    Outside of them are token embeddings and masks, then the logits with the loss, then what the
    backward pass makes.
    """
    with ExitStack() as stack:
        for handle in (
            model.register_forward_pre_hook(lambda *_: live.rest_is(ELSEWHERE)),
            # The loss is computed behind it.
            model.head().register_forward_pre_hook(lambda *_: live.rest_is(HEAD)),
            model.register_forward_hook(lambda *_: live.rest_is(BACKWARD)),
        ):
            stack.callback(handle.remove)
        for part in model.parts():
            # A recomputation of a checkpointed block ends in the middle of it, by an exception.
            for handle in (
                part.module.register_forward_pre_hook(
                    lambda *_, label=part.label: live.enter(label)
                ),
                part.module.register_forward_hook(lambda *_: live.leave(), always_call=True),
            ):
                stack.callback(handle.remove)

        def relabel(parameter: Tensor) -> None:
            if parameter.grad is not None:
                live.relabel(parameter.grad, GRADIENTS)

        for parameter in model.parameters():
            if parameter.requires_grad:
                stack.callback(parameter.register_post_accumulate_grad_hook(relabel).remove)
        yield
