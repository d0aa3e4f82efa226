"""A pretended GPU: an H100 that is not there.

While `pretended_gpu` lasts, `torch.cuda` says that there is one, `.to("cuda")` gives tensors that
say so, and a `Watch` counts what is done with them. There is one order of work, so that streams
and events do nothing but count where the host waits.

Backward passes run on the driver's threads. With the shim (`shim.py`) they run as they are; without
it a loss's `backward` walks the graph and gives every parameter that it finds a gradient of small
equal numbers, so that all but the backward pass itself is seen.
"""

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from functools import wraps
from importlib import import_module
from typing import Any

import torch
import torch.cuda.amp.common
import torch.nn.functional as F
import torch.utils._foreach_utils
from torch import Tensor

from tests.flamingo.gpu.attention import stand_in
from tests.flamingo.gpu.numbers import NumbersMode
from tests.flamingo.gpu.tensors import CUDA, WATCHES, PretendedTensor, is_pretended
from tests.flamingo.gpu.watch import Watch, asked_by

NAME = "NVIDIA H100 80GB HBM3"
MADE_UP_GRADIENT = 1e-3


class Properties:
    """What `torch.cuda.get_device_properties` says."""

    name = NAME
    uuid = "0-0"
    major, minor = 9, 0
    total_memory = 80_000_000_000
    multi_processor_count = 132


class _Stream:
    """A stream, an event, and what enters one: all work is in one order, and done at once."""

    device, device_index, device_type = CUDA, 0, 1
    stream_id = cuda_stream = 0

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_args: object) -> None:
        pass

    def record_event(self, *_args: Any) -> "_Stream":
        return _Stream()

    def record(self, *_args: Any) -> None:
        """Nothing is on its way."""

    wait = wait_stream = wait_event = record

    def synchronize(self) -> None:
        """The host waits for this stream."""
        WATCHES[-1].waits[f"synchronize at {asked_by()}"] += 1

    def query(self) -> bool:
        return True

    def is_capturing(self) -> bool:
        return False

    def elapsed_time(self, *_args: Any) -> float:
        return 0.0


class _Device(contextlib.nullcontext[None]):
    """`torch.cuda.device(…)`."""

    def __init__(self, *_args: Any) -> None:
        super().__init__()


def has_shim() -> bool:
    """Whether torch can be made to think that it has devices, so that backward passes run."""
    torch._C._ensureCUDADeviceGuardSet()
    if not torch.backends.cuda.is_built():
        return True
    return hasattr(ctypes.CDLL(None), "pretend_devices")


def _no(*_args: Any, **_kwargs: Any) -> None:
    return None


def _synchronize(*_args: Any, **_kwargs: Any) -> None:
    WATCHES[-1].waits[f"synchronize at {asked_by()}"] += 1


def _zero(*_args: Any, **_kwargs: Any) -> int:
    return 0


def _of_cuda(random: Tensor) -> dict[str, Any]:
    """What `torch.cuda` says and does, by name."""
    return {
        "_lazy_init": _no,
        "is_initialized": lambda: True,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": _zero,
        "set_device": _no,
        "device": _Device,
        "get_device_name": lambda *_: NAME,
        "get_device_properties": lambda *_: Properties,
        "get_device_capability": lambda *_: (Properties.major, Properties.minor),
        "is_bf16_supported": lambda *_, **__: True,
        "is_current_stream_capturing": lambda: False,
        "memory_allocated": _zero,
        "max_memory_allocated": _zero,
        "memory_reserved": _zero,
        "max_memory_reserved": _zero,
        "memory_stats": lambda *_: {},
        "mem_get_info": lambda *_: (Properties.total_memory, Properties.total_memory),
        "reset_peak_memory_stats": _no,
        "set_per_process_memory_fraction": _no,
        "empty_cache": _no,
        "synchronize": _synchronize,
        "get_rng_state": lambda *_, **__: random.clone(),
        "set_rng_state": _no,
        "manual_seed": _no,
        "manual_seed_all": _no,
        "Stream": _Stream,
        "Event": _Stream,
        "stream": lambda *_: _Stream(),
        "current_stream": lambda *_: _Stream(),
        "default_stream": lambda *_: _Stream(),
    }


def _of_its_own(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same behind an object that no other name has: torch's compiler tells names by those."""

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return called


def _pin_memory(self: Tensor, *_args: Any) -> Tensor:
    watch = WATCHES[-1]
    return self if watch.is_pinned(self) else watch.pin(self.clone())


def _is_pinned(self: Tensor, *_args: Any) -> bool:
    return not is_pretended(self) and WATCHES[-1].is_pinned(self)


def _made_up_backward(self: Tensor, *_args: Any, **_kwargs: Any) -> None:
    """Give every parameter that a loss depends on a gradient, without a backward pass."""
    waiting, seen = [self.grad_fn], set()
    with torch.no_grad(), WATCHES[-1].paused():
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            waiting += [one for one, _ in node.next_functions]
            parameter = getattr(node, "variable", None)
            if parameter is not None:
                made = torch.full_like(parameter, MADE_UP_GRADIENT)
                parameter.grad = made if parameter.grad is None else parameter.grad + made


@contextlib.contextmanager
def pretended_gpu(watch: Watch | None = None) -> Iterator[Watch]:
    """While this lasts there is a GPU; gives what watches it.

    Args:
        watch: None: one whose tensors have values.
    """
    watch = watch or Watch()
    put_back: list[Callable[[], None]] = []

    def put(owner: Any, name: str, value: Any) -> None:
        there = name in vars(owner)
        before = getattr(owner, name, None)
        put_back.append(
            (lambda: setattr(owner, name, before)) if there else lambda: delattr(owner, name)
        )
        setattr(owner, name, value)

    runs_backward = has_shim()
    if runs_backward and torch.backends.cuda.is_built():
        ctypes.CDLL(None).pretend_devices(8)
    for name, value in _of_cuda(torch.get_rng_state()).items():
        put(torch.cuda, name, value if isinstance(value, type) else _of_its_own(value))
    put(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    put(torch.accelerator, "current_stream", lambda *_: _Stream())
    put(torch, "Event", _Stream)
    put(torch, "Stream", _Stream)
    for module in (import_module("torch.optim.optimizer"), torch.utils._foreach_utils):
        # One kernel for many tensors, which torch takes for tensors of these classes alone.
        put(module, "_foreach_supported_types", [Tensor, torch.nn.Parameter, PretendedTensor])
    put(F, "scaled_dot_product_attention", stand_in(watch))
    put(Tensor, "record_stream", _no)
    put(Tensor, "pin_memory", _pin_memory)
    put(Tensor, "is_pinned", _is_pinned)
    if not runs_backward:
        put(Tensor, "backward", _made_up_backward)
    WATCHES.append(watch)
    try:
        with NumbersMode(watch), watch:
            yield watch
    finally:
        WATCHES.pop()
        for undo in reversed(put_back):
            undo()
