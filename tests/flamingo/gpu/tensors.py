"""Tensors that say `cuda` and hold their values, or only their shape, in one of the host.

`PretendedTensor` wraps a tensor of the CPU or of the meta device. Every operation on one comes to
`run`, which tells the watch what is about to happen, takes the wrapping off, computes, and wraps
what came of it.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing

from tests.flamingo.gpu import operations
from tests.flamingo.gpu.attention import VARLEN

if TYPE_CHECKING:
    from tests.flamingo.gpu.watch import Watch

CUDA = torch.device("cuda", 0)
#: Whoever watches; the last one is told. Operations of threads that no mode reaches come here too.
WATCHES: list["Watch"] = []


class PretendedTensor(Tensor):
    """A tensor of the pretended GPU.

    Attributes:
        host: the tensor of the host that it stands for.
    """

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> "PretendedTensor":
        made: PretendedTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            layout=host.layout,
            device=CUDA,
            requires_grad=False,
        )
        return made

    def __init__(self, host: Tensor) -> None:
        super().__init__()
        self.host = host

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"PretendedTensor({self.host})"

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["host"], None

    @staticmethod
    def __tensor_unflatten__(
        inner: dict[str, Tensor], _meta: None, _size: Any, _stride: Any
    ) -> "PretendedTensor":
        return PretendedTensor(inner["host"])

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not WATCHES:
            raise RuntimeError(f"{func}: a tensor of the pretended GPU outside of `pretended_gpu`")
        return run(WATCHES[-1], func, args, kwargs or {})


def is_pretended(value: Any) -> bool:
    """Whether it is a tensor of the pretended GPU itself (no DTensor over one)."""
    return isinstance(value, PretendedTensor)


def wrap(value: Any) -> Any:
    """A host's tensor as one of the GPU; anything else as it is."""
    is_plain = isinstance(value, Tensor) and not is_pretended(value)
    return PretendedTensor(value) if is_plain else value


def kind_of(device: Any) -> str | None:
    """`cuda`, `cpu`, `meta`; None where no device is said."""
    return None if device is None else torch.device(device).type


def run(watch: "Watch", func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Do an operation that has to do with the GPU: one of its tensors comes in or goes out."""
    if torch.is_inference_mode_enabled():  # then composite operations come whole
        with watch:
            found = func.decompose(*args, **kwargs)
        if found is not NotImplemented:
            return found
    leaves = list(operations.leaves_of((args, kwargs)))
    on_gpu = [one for one in leaves if is_pretended(one)]
    on_host = [one for one in leaves if isinstance(one, Tensor) and not is_pretended(one)]
    target = kind_of(kwargs.get("device"))
    watch.before(func, args, kwargs, on_gpu, on_host, target)
    inner = on_gpu[0].host.device if on_gpu else watch.inner
    plain_args, plain_kwargs = operations.mapped(lambda one: _unwrapped(one, inner), (args, kwargs))
    if func is operations.TO_COPY:
        plain_kwargs.pop("non_blocking", None)
    if inner.type == "meta":
        known = _of_meta(watch, func, args, plain_kwargs, target)
        if known is not None:
            return known
        if func not in (operations.TO_COPY, operations.COPY):
            plain_args, plain_kwargs = operations.mapped(_to_meta, (plain_args, plain_kwargs))
    if func in VARLEN:
        return operations.mapped(wrap, VARLEN[func](watch, *plain_args, **plain_kwargs))
    found = func(*plain_args, **plain_kwargs)
    if target == "cpu" or not (on_gpu or target == "cuda"):
        is_down = func is operations.TO_COPY and kwargs.get("non_blocking")
        return watch.pin(found) if is_down else found
    watch.after(func, plain_args, plain_kwargs, found)
    return _wrapped(func, args, kwargs, found)


def _wrapped(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], found: Any) -> Any:
    """What an operation gave, as tensors of the GPU, of which views share their memory."""
    if func is operations.COPY:
        return args[0]
    wrapped = operations.mapped(wrap, found)
    if func._schema.is_mutable or any(one.alias_info is not None for one in func._schema.returns):
        return return_and_correct_aliasing(func, args, kwargs, wrapped)
    return wrapped


def _unwrapped(value: Any, inner: torch.device) -> Any:
    if isinstance(value, PretendedTensor):
        return value.host
    if isinstance(value, torch.device) and value.type == "cuda":
        return inner
    return value


def _to_meta(value: Any) -> Any:
    is_host = isinstance(value, Tensor) and value.device.type == "cpu"
    return value.to("meta") if is_host else value


def _of_meta(
    watch: "Watch", func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], target: str | None
) -> Any:
    """What is read from a tensor without values; None: nothing is read."""
    if func is operations.TO_COPY and target == "cpu" and is_pretended(args[0]):
        host = args[0].host
        return torch.zeros(host.shape, dtype=kwargs.get("dtype") or host.dtype)
    if func is operations.aten._local_scalar_dense.default:
        dtype = args[0].dtype
        if dtype == torch.bool:
            return watch.meta_truth
        return 0.0 if dtype.is_floating_point else 0
    return None
