"""An optimizer whose state is in host memory, and which steps there.

It holds a copy of each trained parameter on the CPU and steps on those: gradients go down,
parameters come back, once an optimizer step. On the device that leaves parameters and gradients:
AdamW's two moments, 8 of its 16 bytes a parameter, are gone. The price is the way over the bus and
a step of the CPU, during which the device waits; accumulation spreads it over more passes.

Of a GPU the copies are pinned, for parameters and gradients alike (8 bytes a parameter): gradients
come down while the host draws the next batch (`fetch`), and parameters go up in parts while it
steps on the next part.

Parameters may be spread over ranks: each then steps on its own rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flamingo.modules.placement import local_part

#: Bytes of parameters that are stepped on together, and then go up.
_PART_BYTES = 64 * 2**20


@dataclass(slots=True)
class _Part:
    """Parameters that are stepped on together.

    Attributes:
        parameters: of the model.
        places: the outer optimizer's groups, by the inner one's.
        inner: the optimizer of their copies.
        fetched: is past when their gradients are here; None without a GPU.
    """

    parameters: list[nn.Parameter]
    places: list[int]
    inner: torch.optim.Optimizer
    fetched: torch.cuda.Event | None = None

    def wait(self) -> None:
        """Until the gradients are here."""
        if self.fetched is not None and not self.fetched.query():
            self.fetched.synchronize()


class OffloadedOptimizer(torch.optim.Optimizer):
    """Looks as the optimizer that it has inside: the same groups, of the model's own parameters.

    Args:
        groups: of parameters, with options.
        make: an inner optimizer of such groups.
        part_bytes: of the parameters that are stepped on together.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        *,
        part_bytes: int = _PART_BYTES,
    ) -> None:
        super().__init__(groups, {})
        self._copies: dict[nn.Parameter, nn.Parameter] = {}
        self._gradients: dict[nn.Parameter, Tensor] = {}
        self._is_fetched = False
        for group in self.param_groups:
            for parameter in group["params"]:
                copy = _host_like(parameter)
                local_part(copy).copy_(local_part(parameter.detach()))
                self._copies[parameter] = nn.Parameter(copy)
        self._parts = [self._part(cut, make) for cut in self._cut(part_bytes)]
        for outer in self.param_groups:
            for name, value in self._parts[0].inner.param_groups[0].items():
                outer.setdefault(name, value)
        self._share_state()

    def _cut(self, part_bytes: int) -> list[list[tuple[int, nn.Parameter]]]:
        """All parameters in their order, with their groups' numbers, in parts of so many bytes."""
        parts: list[list[tuple[int, nn.Parameter]]] = []
        size = part_bytes
        for number, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                if size >= part_bytes:
                    parts.append([])
                    size = 0
                parts[-1].append((number, parameter))
                size += local_part(parameter).nbytes
        return parts

    def _part(
        self,
        cut: list[tuple[int, nn.Parameter]],
        make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    ) -> _Part:
        places = sorted({number for number, _ in cut})
        inner = make(
            [
                {
                    **self.param_groups[place],
                    "params": [self._copies[one] for number, one in cut if number == place],
                }
                for place in places
            ]
        )
        return _Part([one for _, one in cut], places, inner)

    def _share_state(self) -> None:
        """One dictionary a parameter, for both: what is loaded here is there."""
        for part in self._parts:
            for parameter in part.parameters:
                part.inner.state[self._copies[parameter]] = self.state[parameter]

    @torch.no_grad()
    def fetch(self) -> None:
        """Begin to bring the gradients down; from a GPU the host goes on meanwhile."""
        for part in self._parts:
            for parameter in part.parameters:
                self._copies[parameter].grad = self._down(parameter)
            if part.parameters[0].is_cuda:
                part.fetched = torch.cuda.Event()
                part.fetched.record()
        self._is_fetched = True

    def _down(self, parameter: nn.Parameter) -> Tensor | None:
        """The gradient of a parameter in host memory, or on its way there."""
        gradient = parameter.grad
        if gradient is None or not gradient.is_cuda:
            return gradient
        if parameter not in self._gradients:
            self._gradients[parameter] = _host_like(gradient)
        here = self._gradients[parameter]
        local_part(here).copy_(local_part(gradient), non_blocking=True)
        return here

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step on the copies; parameters without a gradient stay."""
        if not self._is_fetched:
            self.fetch()
        self._is_fetched = False
        for part in self._parts:
            for place, inner in zip(part.places, part.inner.param_groups, strict=True):
                outer = self.param_groups[place]
                inner.update({name: value for name, value in outer.items() if name != "params"})
            part.wait()
            part.inner.step()
            for parameter in part.parameters:
                copy = self._copies[parameter]
                if copy.grad is not None:
                    local_part(parameter.detach()).copy_(local_part(copy), non_blocking=True)
                copy.grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 (torch's own)
        """Forget the gradients, here too."""
        self._is_fetched = False
        super().zero_grad(set_to_none)

    @torch.no_grad()
    def settle(self) -> None:
        """After parameters and state were loaded from outside: take them over, to the host."""
        for parameter, copy in self._copies.items():
            copy.copy_(parameter)
            state = self.state[parameter]
            for name, value in state.items():
                if isinstance(value, torch.Tensor):
                    state[name] = value.to("cpu")
        self._share_state()


def _host_like(tensor: Tensor) -> Tensor:
    """Host memory for as much as lies here of a tensor; of a GPU's, pinned."""
    found: Tensor = torch.empty_like(tensor.detach(), device="cpu", pin_memory=tensor.is_cuda)
    return found
