"""What any language model of transformers is asked for: text config, decoder blocks, embeddings."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from flamingo.modules.placement import assign_rows
from mmdata.errors import UserError


def text_config(lang_encoder: nn.Module) -> Any:
    """The config of the text part, for LMs that have others."""
    config: Any = lang_encoder.config
    return config.get_text_config(decoder=True)


def find_decoder_layers(
    lang_encoder: nn.Module, attr_name: str | None = None
) -> tuple[str, nn.ModuleList]:
    """(dotted name, list) of the decoder layers.

    Args:
        lang_encoder: an LM of transformers.
        attr_name: their dotted name; None: the one list of as many as the config says.

    Raises:
        UserError: there is no such list, or more than one.
    """
    if attr_name is not None:
        return attr_name, _named_list(lang_encoder, attr_name)
    num_layers = text_config(lang_encoder).num_hidden_layers
    found = [
        (name, module)
        for name, module in lang_encoder.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == num_layers
    ]
    if found:
        depth = min(name.count(".") for name, _ in found)
        found = [(name, module) for name, module in found if name.count(".") == depth]
    if len(found) != 1:
        names = ", ".join(name for name, _ in found) or "none"
        raise UserError(
            f"{type(lang_encoder).__name__}: expected one list of {num_layers} decoder layers, "
            f"got {names}; name it with decoder_layers_attr_name"
        )
    return found[0]


def _named_list(lang_encoder: nn.Module, attr_name: str) -> nn.ModuleList:
    try:
        module = lang_encoder.get_submodule(attr_name)
    except AttributeError:
        module = None
    if not isinstance(module, nn.ModuleList):
        kind = "nothing" if module is None else type(module).__name__
        raise UserError(
            f"decoder_layers_attr_name={attr_name!r}: expected a ModuleList of "
            f"{type(lang_encoder).__name__}, got {kind}"
        )
    return module


GROWN_ROWS_SEED = 0


def embedding_and_head(lang_encoder: nn.Module) -> tuple[nn.Embedding, nn.Linear]:
    """The LM's input embedding and output head.

    Raises:
        UserError: it has none.
    """
    lm: Any = lang_encoder
    embedding, head = lm.get_input_embeddings(), lm.get_output_embeddings()
    if embedding is None or head is None or not hasattr(head, "weight"):
        raise UserError(
            f"{type(lang_encoder).__name__}: expected an input embedding and an output head, "
            f"got {type(embedding).__name__} and {type(head).__name__}"
        )
    return cast(nn.Embedding, embedding), cast(nn.Linear, head)


def resize_vocabulary(lang_encoder: nn.Module, rows: int) -> None:
    """Gives the LM `rows` rows; those that it did not have (`<PAD>`) are constants.

    They never train, so a checkpoint of what trains is whole without them. A padded vocabulary
    shrinks, as in OpenFlamingo: the logits are as wide as the tokenizer.
    """
    old = embedding_and_head(lang_encoder)[0].weight.shape[0]
    if old == rows:
        return
    cast(Any, lang_encoder).resize_token_embeddings(rows, mean_resizing=False)
    if not embedding_and_head(lang_encoder)[0].weight.is_meta:
        fill_grown_rows(lang_encoder, old)


def fill_grown_rows(lang_encoder: nn.Module, old: int) -> None:
    """Values of the rows from number `old` on, which the LM's files do not have."""
    embedding, head = embedding_and_head(lang_encoder)
    grown = embedding.weight.shape[0] - old
    if grown <= 0:
        return
    generator = torch.Generator().manual_seed(GROWN_ROWS_SEED)
    assign_rows(embedding.weight, old, _normal((grown, embedding.weight.shape[1]), generator))
    if head.weight is not embedding.weight:
        assign_rows(head.weight, old, _normal((grown, head.weight.shape[1]), generator))
    if getattr(head, "bias", None) is not None:
        assign_rows(head.bias, old, torch.zeros(grown))


def _normal(shape: tuple[int, ...] | torch.Size, generator: torch.Generator) -> Tensor:
    return torch.empty(shape).normal_(0.0, 0.02, generator=generator)
