"""OpenFlamingo's checkpoints, read and written: names, shapes and nothing left unexplained.

Most names are equal by construction (`perceiver.*`, `….gated_cross_attn_layer.*`). What differs:

- `module.` of a DDP-wrapped model, anywhere in the name;
- where cross-attention lies: behind the name of the LM's layer list (which MPT forks and
  transformers may spell differently) or, in v1, under `gated_cross_attn_layers.{i}`;
- the media-token rows, which lie inside the whole embedding matrix, and with an untied LM inside
  the output matrix;
- GPT-NeoX's output matrix: `embed_out` there, `lm_head` in transformers >= 5.11.

OpenFlamingo drops an untied `lm_head` (its filter keeps names with "embed") and a frozen `wte`;
exports from here keep both, else the new tokens are random again after a reload.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from flamingo.model.decoder import text_config
from flamingo.model.flamingo import Flamingo
from flamingo.model.media_tokens import embedding_and_head
from flamingo.model.placement import assign, full_tensor
from mmdata.errors import UserError

logger = logging.getLogger(__name__)

INPUT_NAMES = ("wte", "embed_tokens", "embed_in", "word_embeddings")
OUTPUT_NAMES = ("lm_head", "embed_out")
HEAD_IN_OPENFLAMINGO = {"gpt_neox": "embed_out"}

_IN_LAYER = re.compile(
    r"^lang_encoder\.(?:.+\.)?(\d+)\.(gated_cross_attn_layer|decoder_layer)\.(.+)$"
)
_V1_LISTS = {
    "gated_cross_attn_layers": "gated_cross_attn_layer",
    "old_decoder_blocks": "decoder_layer",
}
_V1 = re.compile(rf"^lang_encoder\.({'|'.join(_V1_LISTS)})\.(\d+)\.(.+)$")
_MATRIX = re.compile(
    rf"^lang_encoder\.(?:.+\.)?({'|'.join(INPUT_NAMES + OUTPUT_NAMES)})\.(weight|bias)$"
)


@dataclass(kw_only=True, slots=True)
class LoadReport:
    """What a checkpoint filled, and what of ours it did not hold."""

    loaded: list[str] = field(default_factory=list)
    kept_initial: list[str] = field(default_factory=list)
    """Media-token rows that the checkpoint lacks: they stay at their initial values."""


def normalise_keys(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The flat weights of a training checkpoint or a released one, without `module.`."""
    inner = checkpoint.get("model_state_dict", checkpoint)
    return {name.replace("module.", ""): value for name, value in inner.items()}


def our_name(name: str, layers: str, embedding: str, head: str) -> str:
    """One of OpenFlamingo's names, in this model's spelling."""
    if match := _V1.match(name):
        v1_list, index, rest = match.groups()
        return f"lang_encoder.{layers}.{index}.{_V1_LISTS[v1_list]}.{rest}"
    if match := _IN_LAYER.match(name):
        index, part, rest = match.groups()
        return f"lang_encoder.{layers}.{index}.{part}.{rest}"
    if match := _MATRIX.match(name):
        matrix, kind = match.groups()
        return f"lang_encoder.{embedding if matrix in INPUT_NAMES else head}.{kind}"
    return name


def module_name(parent: nn.Module, wanted: nn.Module) -> str:
    """Dotted name of a submodule."""
    return next(name for name, module in parent.named_modules() if module is wanted)


def load_openflamingo(
    model: Flamingo, checkpoint: Mapping[str, Any], *, may_lack: Iterable[str] = ()
) -> LoadReport:
    """Fills the model from a checkpoint with OpenFlamingo's names.

    Names that belong nowhere, other shapes and missing parts of ours raise, each in one line;
    `may_lack` names top-level parts (`perceiver`) that may be missing.
    """
    lm = model.lang_encoder
    embedding, head = embedding_and_head(lm)
    names = (model.decoder_layers_name, module_name(lm, embedding), module_name(lm, head))
    given = _renamed(normalise_keys(checkpoint), *names)
    targets = model.state_dict(keep_vars=True)
    matrices = {
        "input_rows": f"lang_encoder.{names[1]}.weight",
        "output_rows": f"lang_encoder.{names[2]}.weight",
    }
    if model.media_tokens.tied:
        _drop_tied_copy(given, matrices["input_rows"], matrices["output_rows"])
        del matrices["output_rows"]
    _check_names(given, targets, frozenset(may_lack))
    report = LoadReport(loaded=sorted(given))
    for name, value in given.items():
        assign(targets[name], value)
    for rows, name in matrices.items():
        if name in given:
            values = given[name][list(model.media_tokens.token_ids)]
            assign(getattr(model.media_tokens, rows), values)
        else:
            report.kept_initial.append(f"media_tokens.{rows}")
    if report.kept_initial:
        logger.warning(
            "not in the checkpoint, left at their initial values: %s", report.kept_initial
        )
    return report


def _renamed(
    checkpoint: dict[str, Tensor], layers: str, embedding: str, head: str
) -> dict[str, Tensor]:
    """In our spelling; a tensor that is there under several names must be the same one."""
    given: dict[str, Tensor] = {}
    for name, value in checkpoint.items():
        ours = our_name(name, layers, embedding, head)
        if ours in given and not torch.equal(given[ours], value):
            raise UserError(f"checkpoint: {ours} is there twice, with different values")
        given[ours] = value
    return given


def _drop_tied_copy(given: dict[str, Tensor], input_name: str, output_name: str) -> None:
    copy = given.pop(output_name, None)
    if copy is None or input_name == output_name:
        return
    if not torch.equal(given.setdefault(input_name, copy), copy):
        raise UserError(
            f"checkpoint: expected {output_name} equal to {input_name} (this LM ties them), "
            "got another; it was made with an LM that does not"
        )


def _check_names(
    given: Mapping[str, Tensor], targets: Mapping[str, Tensor], may_lack: frozenset[str]
) -> None:
    unknown = sorted(set(given) - set(targets))
    if unknown:
        raise UserError(
            f"checkpoint: {len(unknown)} names belong to no part of this model: "
            f"{', '.join(unknown[:3])}"
        )
    needed = (name for name in targets if is_ours(name) and not name.startswith("media_tokens."))
    missing = [name for name in needed if name not in given]
    if missing and not may_lack.issuperset(name.partition(".")[0] for name in missing):
        raise UserError(
            f"checkpoint: {len(missing)} parts of this model are missing: {', '.join(missing[:3])}"
        )
    for name, value in given.items():
        if value.shape != targets[name].shape:
            raise UserError(
                f"checkpoint: {name}: expected {tuple(targets[name].shape)}, "
                f"got {tuple(value.shape)}"
            )


def is_ours(name: str) -> bool:
    """Whether a parameter is part of what Flamingo adds to the LM and the tower."""
    return name.startswith(("perceiver.", "media_tokens.")) or ".gated_cross_attn_layer." in name


def export_openflamingo(model: Flamingo) -> dict[str, Tensor]:
    """The weights under OpenFlamingo's names, media-token rows back in their matrices.

    As in its own checkpoints a tied head is there under both of its names, as one tensor.
    """
    lm, rows = model.lang_encoder, model.media_tokens
    embedding, head = embedding_and_head(lm)
    family = text_config(lm).model_type
    head_name = HEAD_IN_OPENFLAMINGO.get(family, module_name(lm, head))
    exported = {
        name: full_tensor(value)
        for name, value in model.state_dict().items()
        if is_ours(name) and not name.startswith("media_tokens.")
    }
    for name, parameter in lm.named_parameters():
        if "embed" in name and parameter is not embedding.weight and parameter is not head.weight:
            exported[f"lang_encoder.{name}"] = full_tensor(parameter)
    matrix = _with_rows(embedding.weight, rows.input_rows, rows.token_ids)
    exported[f"lang_encoder.{module_name(lm, embedding)}.weight"] = matrix
    if rows.output_rows is not None:
        matrix = _with_rows(head.weight, rows.output_rows, rows.token_ids)
    exported[f"lang_encoder.{head_name}.weight"] = matrix
    return exported


def _with_rows(matrix: Tensor, rows: Tensor, token_ids: tuple[int, int]) -> Tensor:
    whole = full_tensor(matrix).clone()
    whole[list(token_ids)] = full_tensor(rows).to(whole)
    return whole


def kept_state_dict(model: Flamingo) -> dict[str, Tensor]:
    """What a checkpoint holds, as it lies on this rank: what Flamingo adds (frozen rows included)
    and adapters, nothing of the LM. The tensors share memory with the model's."""
    values = model.state_dict()
    return {name: values[name] for name in trainable_names(model)}


def trainable_names(model: Flamingo) -> list[str]:
    """Names of our own form, in the model's order."""
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return [name for name in model.state_dict() if is_ours(name) or name in trains]


def trainable_state_dict(model: Flamingo) -> dict[str, Tensor]:
    """Our own form: `kept_state_dict`, each tensor whole."""
    return {name: full_tensor(value) for name, value in kept_state_dict(model).items()}


def load_trainable(model: Flamingo, weights: Mapping[str, Tensor]) -> None:
    """Fills a model from `trainable_state_dict`."""
    expected = trainable_names(model)
    if set(weights) != set(expected):
        differ = sorted(set(weights) ^ set(expected))
        raise UserError(
            f"checkpoint: expected {len(expected)} tensors, got {len(weights)}; "
            f"different: {', '.join(differ[:3])}"
        )
    targets = model.state_dict(keep_vars=True)
    for name, value in weights.items():
        if value.shape != targets[name].shape:
            raise UserError(
                f"checkpoint: {name}: expected {tuple(targets[name].shape)}, "
                f"got {tuple(value.shape)}"
            )
        assign(targets[name], value)
