"""The matrices of the LM's layers in NF4: 4 bits a weight and one scale for each 64 (torchao's).

Quantised are all linear layers inside decoder layers, adapters on them or not; embeddings, head and
norms stay. A product first makes its matrix whole again, in the type of its input, forward and
backward: that costs time, and one matrix at a time of memory.

Matrices are quantised one by one, so that a whole one lives beside the small ones only while it is
read. The mean of a matrix's scales is part of its format, so it is quantised whole and cut
afterwards, which is why all ranks (and any number of them) compute with the same values.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from flamingo.modules.language_model import find_decoder_layers
from flamingo.modules.placement import local_part
from mmdata.errors import MissingExtraError, UserError

BLOCK = 64
"""Weights that share a scale; scales are in 8 bits, and share a scale of their own in turn."""
MAX_SCALES = 256


def is_quantised(value: Tensor) -> bool:
    """Whether a tensor, spread or not, is in NF4."""
    return type(local_part(value)).__name__ == "NF4Tensor"


def quantised_names(model: nn.Module) -> list[str]:
    """Names of the parameters in NF4."""
    return [name for name, value in model.named_parameters() if is_quantised(value)]


def stored_bytes(value: Tensor) -> int:
    """Bytes that a tensor takes on this rank; for one in NF4 `element_size` would be wrong."""
    here: Any = local_part(value)
    if is_quantised(here):
        parts = (here.quantized_data, here.quantized_scalers, here.quantization_factor)
        return sum(part.numel() * part.element_size() for part in parts)
    return int(here.numel() * here.element_size())


def linear_layers(
    lang_encoder: nn.Module, attr_name: str | None = None
) -> Iterator[tuple[str, nn.Linear]]:
    """(name in the LM, layer) of the linear layers inside decoder layers."""
    prefix, layers = find_decoder_layers(lang_encoder, attr_name)
    for name, module in layers.named_modules(prefix=prefix):
        if isinstance(module, nn.Linear):
            yield name, module


def quantise_linears(
    lang_encoder: nn.Module,
    *,
    stored: Mapping[str, Tensor] | None = None,
    device: torch.device | str | None = None,
    num_parts: int = 1,
    attr_name: str | None = None,
) -> int:
    """Puts the matrices of all linear layers in NF4; returns how many there were.

    Args:
        lang_encoder: as transformers makes it, before anything is put around its layers.
        stored: weights by the LM's names, where its own are on the meta device.
        device: where the quantised matrices are to be; that of each matrix if not given.
        num_parts: ranks that each take an equal part of the rows.
        attr_name: of the list of layers, where structure does not tell it.

    Raises:
        UserError: there are no such layers, or one of them cannot be quantised or cut.
        MissingExtraError: torchao is not installed.
    """
    to_nf4 = _torchao()
    count = 0
    for name, layer in linear_layers(lang_encoder, attr_name):
        whole = layer.weight.detach()
        if stored is not None:
            whole = _take(f"{name}.weight", whole, stored)
        scales = _scales_together(f"{name}.weight", whole.shape, num_parts)
        whole = whole.to(device=device or whole.device, dtype=layer.weight.dtype)
        matrix = nn.Parameter(to_nf4(whole.contiguous(), BLOCK, scales), requires_grad=False)
        layer._parameters["weight"] = matrix  # the old one goes before the next is read
        del whole
        count += 1
    if not count:
        raise UserError(
            f"--lm-adapter qlora: {type(lang_encoder).__name__} has no nn.Linear in its layers "
            "to keep in 4 bits; use --lm-adapter lora"
        )
    return count


@torch.no_grad()
def dequantise_linears(lang_encoder: nn.Module) -> int:
    """Makes every NF4 matrix an ordinary one again, with the values that it stands for."""
    count = 0
    for module in lang_encoder.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            if is_quantised(value):
                whole = cast(Any, value).get_original_weight()
                module._parameters[name] = nn.Parameter(whole, requires_grad=False)
                count += 1
    return count


def _take(name: str, empty: Tensor, stored: Mapping[str, Tensor]) -> Tensor:
    if name not in stored:
        raise UserError(f"language model: its weights lack {name}")
    value = stored[name]
    if value.shape != empty.shape:
        raise UserError(
            f"language model: {name}: expected {tuple(empty.shape)}, got {tuple(value.shape)}"
        )
    return value


def _scales_together(name: str, shape: torch.Size, num_parts: int) -> int:
    """How many scales share one of their own, so that rows can be cut between blocks of them."""
    rows, columns = shape
    whole_blocks = columns % BLOCK == 0
    scales = math.gcd(MAX_SCALES, columns // BLOCK) if whole_blocks else 1
    if rows * columns % BLOCK:
        raise UserError(
            f"--lm-adapter qlora: {name}: {rows} x {columns} weights are no multiple of {BLOCK}; "
            "use --lm-adapter lora"
        )
    if rows % num_parts or (rows // num_parts * columns) % BLOCK:
        raise UserError(
            f"--lm-adapter qlora: {name}: its {rows} rows cannot be cut into {num_parts} equal "
            "parts; use another number of ranks, or --parallel ddp"
        )
    return scales


def _torchao() -> Any:
    """torchao's `to_nf4`."""
    try:
        from torchao.quantization.quantize_.workflows.nf4.nf4_tensor import to_nf4
    except ImportError as error:
        raise MissingExtraError("lora", "torchao >= 0.18", "--lm-adapter qlora") from error
    return to_nf4
