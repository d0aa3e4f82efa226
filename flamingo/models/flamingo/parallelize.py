"""A model spread over ranks, built without any rank holding it.

Parameters are made on the meta device, spread, and given memory for their own rows; then each rank
copies those rows from files that are mapped, and draws what no file holds one parameter at a time.
So a rank never holds more than one whole tensor beyond its shards, and what it reads from the disk
is its share. The values are those of a model that is built whole.

Read whole are only LMs that transformers computes from their files rather than reads, and files
that cannot be mapped (`lm_files.py`).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from flamingo.models.family import Rows
from flamingo.models.flamingo.build import NoWeights
from flamingo.models.flamingo.model import Flamingo
from flamingo.modules.absent_tower import AbsentTower
from flamingo.modules.freezing import is_adapter
from flamingo.modules.hub import Hub
from flamingo.modules.language_model import embedding_and_head, fill_grown_rows
from flamingo.modules.lm_files import stored_weights
from flamingo.modules.meta import materialise
from flamingo.modules.placement import _fill
from flamingo.modules.quantised import is_quantised, quantise_linears
from flamingo.modules.vision import map_tower
from mmdata.errors import UserError


class OwnRows(NoWeights):
    """Parts are built empty; once they are spread, a rank fills its rows. Every rank builds."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._tower: Mapping[str, Tensor] = {}
        self._lm: Mapping[str, Tensor] = {}

    def tower(
        self, name: str, pretrained: str | None, *, cache_dir: str | None, offline: bool
    ) -> tuple[nn.Module, Any]:
        tower, image_processor, self._tower = map_tower(
            name, pretrained, cache_dir=cache_dir, offline=offline
        )
        return tower, image_processor

    def language_model(
        self, hub: Hub, dtype: torch.dtype, attn_implementation: str | None
    ) -> nn.Module:
        lm = super().language_model(hub, dtype, attn_implementation)
        self._lm = stored_weights(
            lm, hub.weight_files(), lambda: hub.language_model(dtype, attn_implementation)
        )
        return lm

    def quantise(self, lang_encoder: nn.Module, attr_name: str | None) -> None:
        """Every rank reads each matrix whole, one at a time, and cuts its rows of the result."""
        quantise_linears(
            lang_encoder,
            stored=self._lm,
            device=self._rows.device,
            num_parts=self._rows.num_parts,
            attr_name=attr_name,
        )

    def assemble(
        self, tower: nn.Module, lang_encoder: nn.Module, *others: Any, **options: Any
    ) -> Flamingo:
        old_rows = embedding_and_head(lang_encoder)[0].weight.shape[0]
        model = super().assemble(tower, lang_encoder, *others, **options)
        self._rows.shard(model)
        materialise(model, self._rows.place, buffers=self._rows.device)
        fill_tower(model, self._tower)
        fill_language_model(model, self._lm)
        fill_grown_rows(lang_encoder, old_rows)
        model.initialise(
            options["seed"], new_token_init=options["new_token_init"], old_rows=old_rows
        )
        self._tower, self._lm = {}, {}  # closes the files
        return model


def fill_tower(model: Flamingo, stored: Mapping[str, Tensor]) -> None:
    """Copies a rank's rows of the vision tower.

    Raises:
        UserError: there are no weights, they lack some of it, or have another shape.
    """
    if isinstance(model.vision_encoder, AbsentTower):
        return
    if not stored:
        raise UserError("vision tower: expected pretrained weights, got none")
    targets = model.vision_encoder.state_dict(keep_vars=True)
    _fill("vision tower", [({name}, value) for name, value in targets.items()], stored)


def fill_language_model(model: Flamingo, stored: Mapping[str, Tensor]) -> None:
    """Copies a rank's rows of the LM; `stored` has the names of the LM before it was wrapped.

    Raises:
        UserError: the weights lack some of it, or have another shape.
    """
    lm = model.lang_encoder
    embedding, head = embedding_and_head(lm)
    wrapped = f"{model.decoder_layers_name}."
    names: dict[int, set[str]] = {}
    tensors: dict[int, Tensor] = {}
    for name, value in lm.state_dict(keep_vars=True).items():
        if ".gated_cross_attn_layer." in name or is_adapter(name) or is_quantised(value):
            continue
        name = name.replace(".base_layer.", ".")
        original = name.replace(".decoder_layer.", ".", 1) if name.startswith(wrapped) else name
        names.setdefault(id(value), set()).add(original)
        tensors[id(value)] = value
    # The vocabulary was resized to the tokenizer's: rows that a file has not are not its fault.
    resized = {id(value) for value in (embedding.weight, head.weight, head.bias)}
    targets = [(names[key], value) for key, value in tensors.items()]
    _fill(f"language model {type(lm).__name__}", targets, stored, resized)
