"""Construction without memory for the parameters, and with real values for the buffers.

Under `torch.device("meta")` buffers lose their values as well, and those that no checkpoint
holds (rotary tables, masks) would have to be computed again from the config, or logits are
silently wrong. Here only parameters go to the meta device, so nothing has to be rebuilt; the
price is a patched `register_parameter` while a model is being built, so build in one thread.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Modules built in here have their parameters on the meta device."""
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            # At once, so that the module's own initialisation costs nothing either.
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def materialise(
    model: nn.Module, device: torch.device | str, buffers: torch.device | str | None = None
) -> None:
    """Gives the parameters on the meta device memory, sharded or not; all else only moves, to
    `buffers` if it is given.

    What lies in that memory is undefined until weights are loaded. This is `Module.to_empty`,
    which would empty buffers and loaded towers too.
    """
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            places.setdefault(id(parameter), []).append((module, name))
    model._apply(
        lambda t: torch.empty_like(t, device=device) if t.is_meta else t.to(buffers or device)
    )
    for (first, first_name), *others in places.values():  # tied ones came out as several
        for module, name in others:
            setattr(module, name, getattr(first, first_name))
