"""What torch makes of numbers, or turns into numbers, before any operation is seen.

`torch.tensor(…, device="cuda")` makes a tensor on the host and copies it; `tolist` and `numpy` read
memory by themselves; `pin_memory=True` asks a driver. A function mode sees these calls.
"""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from tests.flamingo.gpu.tensors import is_pretended, kind_of, wrap
from tests.flamingo.gpu.watch import Watch, asked_by

_MAKE = ("tensor", "as_tensor", "asarray", "scalar_tensor", "new_tensor")
_TURN = ("tolist", "numpy", "__array__")


class NumbersMode(TorchFunctionMode):
    """Tells a watch of them, and does them on the host."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in _TURN and args and is_pretended(args[0]):
            self.watch.reads[f"{name} of {tuple(args[0].shape)} at {asked_by()}"] += 1
            host = args[0].host
            values = torch.zeros(host.shape, dtype=host.dtype) if host.is_meta else host
            return getattr(values, name)(*args[1:], **kwargs)
        if name in _MAKE:
            like = args[0] if name == "new_tensor" else None
            device = kind_of(kwargs.get("device"))
            given = args[1:] if like is not None else args
            is_up = device == "cuda" or (device is None and is_pretended(like))
            if is_up and not any(map(is_pretended, given)):
                kwargs.pop("device", None)
                if like is not None:
                    kwargs.setdefault("dtype", like.dtype)
                made = torch.tensor(*given, **kwargs)
                self.watch.up(made, is_asked=False)
                return wrap(made.to(self.watch.inner))
        if kwargs.get("pin_memory") and kind_of(kwargs.get("device")) in (None, "cpu"):
            kwargs["pin_memory"] = False
            return self.watch.pin(func(*args, **kwargs))
        return func(*args, **kwargs)
