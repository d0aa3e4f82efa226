"""An optimizer whose state is in host memory, and which steps there.

It holds a copy of each trained parameter on the CPU and steps on those: gradients go down,
parameters come back, once an optimizer step. On the device that leaves parameters and gradients:
AdamW's two moments, 8 of its 16 bytes a parameter, are gone. The price is the way over the bus and
a step of the CPU, during which the device waits; accumulation spreads it over more passes.

Parameters may be spread over ranks: each then steps on its own rows.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class OffloadedOptimizer(torch.optim.Optimizer):
    """Looks as the optimizer that it has inside: the same groups, of the model's own parameters.

    Args:
        groups: of parameters, with options.
        make: the inner optimizer of such groups.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    ) -> None:
        super().__init__(groups, {})
        self._copies: dict[nn.Parameter, nn.Parameter] = {}
        inner_groups = []
        for group in self.param_groups:
            for parameter in group["params"]:
                copy = parameter.detach().to("cpu", copy=True)
                self._copies[parameter] = nn.Parameter(copy)
            copies = [self._copies[parameter] for parameter in group["params"]]
            inner_groups.append({**group, "params": copies})
        self._inner = make(inner_groups)
        for outer, inner in zip(self.param_groups, self._inner.param_groups, strict=True):
            for name, value in inner.items():
                outer.setdefault(name, value)
        self._share_state()

    def _share_state(self) -> None:
        """One dictionary a parameter, for both: what is loaded here is there."""
        for parameter, copy in self._copies.items():
            self._inner.state[copy] = self.state[parameter]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step on the copies; parameters without a gradient stay."""
        for outer, inner in zip(self.param_groups, self._inner.param_groups, strict=True):
            inner.update({name: value for name, value in outer.items() if name != "params"})
        for parameter, copy in self._copies.items():
            copy.grad = None if parameter.grad is None else parameter.grad.to("cpu")
        self._inner.step()
        for parameter, copy in self._copies.items():
            if copy.grad is not None:
                parameter.copy_(copy)
            copy.grad = None

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
