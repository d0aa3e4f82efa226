"""A trained Flamingo written for others: under OpenFlamingo's names, or ours with adapters merged.

`openflamingo` needs the LM, since the media-token rows lie inside its matrices there.
"""

import os
from collections.abc import Mapping
from typing import Any, cast

import torch
from transformers import PretrainedConfig

from flamingo.models.flamingo.checkpoint import export_openflamingo, is_ours, trainable_state_dict
from flamingo.models.flamingo.compat import describe
from flamingo.models.flamingo.merge import merge_adapters, save_language_model
from flamingo.modules.adapter_settings import check_merge
from flamingo.modules.adapters import has_adapters
from flamingo.modules.checkpoint_files import (
    LM_FOLDER,
    TOKENIZER_FOLDER,
    WEIGHTS_FILE,
    write_weights,
)

OPENFLAMINGO_FILE = "checkpoint.pt"


def export_model(
    model: Any,  # a Flamingo: the seam names none
    tokenizer: Any,
    folder: str,
    *,
    format: str,
    merge: bool,
    parts: Mapping[str, Any],
) -> int:
    """Write a model in either form; arguments, result and errors as `Family.export`."""
    check_merge(
        "this run",
        has_adapters=has_adapters(model.lang_encoder),
        merge=merge,
        format=format,
        holds_adapters=format == "safetensors",
    )
    merged = merge_adapters(model.lang_encoder) if merge else 0
    tokenizer.save_pretrained(os.path.join(folder, TOKENIZER_FOLDER))
    if format == "openflamingo":
        torch.save(export_openflamingo(model), os.path.join(folder, OPENFLAMINGO_FILE))
    weights = {name: value.clone() for name, value in trainable_state_dict(model).items()}
    record = model.facts.record() if model.facts else None
    if merge:
        lm_folder = os.path.join(folder, LM_FOLDER)
        save_language_model(model, lm_folder)
        tokenizer.save_pretrained(lm_folder)
        parts = {**parts, "lm_path": f"./{LM_FOLDER}"}
        record = describe(
            cast(PretrainedConfig, model.lang_encoder.config),
            tokenizer,
            vision_width=model.vis_dim,
            cross_attn_every_n_layers=model.cross_attn_every_n_layers,
            lm_path=lm_folder,
        ).record()
        weights = {name: value for name, value in weights.items() if is_ours(name)}
    if format == "safetensors":
        write_weights(os.path.join(folder, WEIGHTS_FILE), weights, record, parts)
    return merged
