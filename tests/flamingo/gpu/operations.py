"""Which operations of torch read from a device, make the host wait, or move nothing at all."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

aten: Any = torch.ops.aten

#: Device and type may change; `copy_` writes into a tensor that is there.
TO_COPY, COPY = aten._to_copy.default, aten.copy_.default
#: A number goes to the host, which waits for it.
READS = {
    aten._local_scalar_dense.default,
    aten.item.default,
    aten.equal.default,
    aten.is_nonzero.default,
}
#: The size of the result is only known on the device, and the host asks for it.
SIZED_BY_VALUES = {
    aten.nonzero.default,
    aten.nonzero_numpy.default,
    aten.masked_select.default,
    aten.repeat_interleave.Tensor,
    aten.bincount.default,
    aten.unique_consecutive.default,
    aten.unique_dim.default,
    aten._unique2.default,
}
#: Take a list of indices, each of which may be a mask (sized by values) or lie on the host.
INDEXING = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
#: Names of operations that start no kernel: they look at memory in another way, or ask for some.
NO_KERNEL = frozenset(
    {
        "view", "t", "transpose", "permute", "expand", "unsqueeze", "squeeze", "slice", "select",
        "split", "split_with_sizes", "chunk", "unbind", "narrow", "alias", "detach", "as_strided",
        "_unsafe_view", "_reshape_alias", "lift_fresh", "unfold", "diagonal", "view_as_real",
        "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "set_",
        "resize_", "record_stream", "is_pinned", "_pin_memory", "_local_scalar_dense", "item",
        "is_nonzero", "_has_compatible_shallow_copy_type",
    }
)  # fmt: skip


def leaves_of(value: Any) -> Iterator[Any]:
    """What stands in the tuples, lists and dictionaries of arguments; torch's own takes longer."""
    if isinstance(value, tuple | list):
        for one in value:
            yield from leaves_of(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from leaves_of(one)
    else:
        yield value


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Arguments whose leaves are changed."""
    if isinstance(value, tuple | list):
        return type(value)([mapped(change, one) for one in value])
    if isinstance(value, dict):
        return {name: mapped(change, one) for name, one in value.items()}
    return change(value)


def short_name(func: Any) -> str:
    """`aten::add.Tensor` -> `add`."""
    return str(func._schema.name).split("::")[1]


def moved_bytes(tensors: list[torch.Tensor]) -> int:
    """Bytes that are read or written where each tensor is passed once; expanded ones are smaller.

    Args:
        tensors: inputs and outputs of a kernel.
    """
    total = 0
    for one in tensors:
        count = 1
        for size, stride in zip(one.shape, one.stride(), strict=True):
            count *= size if stride else 1
        total += count * one.element_size() if one.numel() else 0
    return total
