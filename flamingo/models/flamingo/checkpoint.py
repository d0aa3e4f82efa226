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
from typing import Any

import torch
from torch import Tensor, nn

from flamingo.models.flamingo.network import FlamingoNetwork
from flamingo.modules.freezing import FROZEN, is_adapter
from flamingo.modules.language_model import embedding_and_head, text_config
from flamingo.modules.load_report import (
    MIN_COSINE,
    LoadReport,
    compare_embeddings,
    is_computed,
    report_load,
)
from flamingo.modules.placement import assign, full_tensor, local_rows
from flamingo.modules.quantised import is_quantised
from mmdata.errors import UserError
from mmdata.wording import plural

logger = logging.getLogger(__name__)

INPUT_NAMES = ("wte", "embed_tokens", "embed_in", "word_embeddings")
OUTPUT_NAMES = ("lm_head", "embed_out")
HEAD_IN_OPENFLAMINGO = {"gpt_neox": "embed_out"}

_WRAPPERS = ("_checkpoint_wrapped_module.", "_fsdp_wrapped_module.", "module.")
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


def normalise_keys(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The flat weights of a training checkpoint or a released one, without wrappers' prefixes."""
    inner = checkpoint.get("model_state_dict", checkpoint)
    return {plain_name(name): value for name, value in inner.items()}


def plain_name(name: str) -> str:
    """A name without what DDP, FSDP and activation checkpointing put into it, at any place."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


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
    return str(next(name for name, module in parent.named_modules() if module is wanted))


def load_openflamingo(
    model: FlamingoNetwork, checkpoint: Mapping[str, Any], *, may_lack: Iterable[str] = ()
) -> LoadReport:
    """Fills the model from a checkpoint with OpenFlamingo's names.

    Names that belong nowhere, other shapes, missing parts of ours and another LM's embeddings
    raise before anything is filled, each in one line; `may_lack` names top-level parts
    (`perceiver`) that may be missing.
    """
    lm = model.lang_encoder
    embedding, head = embedding_and_head(lm)
    names = (model.decoder_layers_name, module_name(lm, embedding), module_name(lm, head))
    targets = model.state_dict(keep_vars=True)
    given = _below_adapters(_renamed(normalise_keys(checkpoint), *names), targets)
    matrices = {
        "input_rows": f"lang_encoder.{names[1]}.weight",
        "output_rows": f"lang_encoder.{names[2]}.weight",
    }
    if model.media_tokens.tied:
        _drop_tied_copy(given, matrices["input_rows"], matrices["output_rows"])
        del matrices["output_rows"]
    computed = [name for name in given if name not in targets and is_computed(name)]
    for name in computed:
        del given[name]
    problem = _misfit(given, targets, frozenset(may_lack))
    own = {name: targets[name] for name in matrices.values()}
    note, foreign = _compared(given, own, min(model.media_tokens.token_ids))
    report = report_load(
        given,
        targets,
        matrices,
        tied=model.media_tokens.tied,
        computed=len(computed),
        note_on_embeddings=note,
    )
    if problem or foreign:
        logger.warning("%s", report.text())
        raise UserError(f"checkpoint: {problem or foreign}")
    for name, value in given.items():
        assign(targets[name], value)
    for rows, name in matrices.items():
        if name in given:
            # Not from the LM's matrix, which may be of lower precision.
            values = given[name][list(model.media_tokens.token_ids)]
            assign(getattr(model.media_tokens, rows), values)
    if report.kept_initial:
        logger.warning(
            "not in the checkpoint, left at their initial values: %s", report.kept_initial
        )
    return report


def _compared(
    given: Mapping[str, Tensor], matrices: Mapping[str, Tensor], num_rows: int
) -> tuple[str, str]:
    """What to say of the LM's matrices in a file: a note, and a refusal where they are another's.

    `num_rows` rows are text's; those behind are added ones, which differ. A rank looks at what
    lies on it, so that nothing is sent.
    """
    if any(".decoder_layer." in name and "embed" not in name for name in given):
        return "with the whole LM in the file", ""
    for name, matrix in matrices.items():
        if name not in given or matrix.is_meta or given[name].shape != matrix.shape:
            continue
        here, first = local_rows(matrix.detach())
        rows = max(0, min(num_rows - first, len(here)))
        cosine = compare_embeddings(here, given[name][first : first + rows], rows)
        if cosine is not None and cosine < MIN_COSINE:
            return "another LM's", (
                f"{name}: expected this LM's text embeddings, got another's (mean cosine "
                f"{cosine:.2f} over {plural(rows, 'row')}); give the LM that it was trained with"
            )
        if cosine is not None:
            return f"not quite this LM's (mean cosine {cosine:.4f}); the file's are used", ""
    return "text embeddings equal to the LM's", ""


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


def _below_adapters(
    given: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The LM's own layers by the names that they have below adapters."""
    found: dict[str, Tensor] = {}
    for name, value in given.items():
        layer, _, kind = name.rpartition(".")
        below = f"{layer}.base_layer.{kind}"
        found[below if name not in targets and below in targets else name] = value
    return found


def _drop_tied_copy(given: dict[str, Tensor], input_name: str, output_name: str) -> None:
    copy = given.pop(output_name, None)
    if copy is None or input_name == output_name:
        return
    if not torch.equal(given.setdefault(input_name, copy), copy):
        raise UserError(
            f"checkpoint: expected {output_name} equal to {input_name} (this LM ties them), "
            "got another; it was made with an LM that does not"
        )


def _misfit(
    given: Mapping[str, Tensor], targets: Mapping[str, Tensor], may_lack: frozenset[str]
) -> str | None:
    """Why weights cannot be this model's, if they cannot."""
    unknown = sorted(set(given) - set(targets))
    if unknown:
        return f"{len(unknown)} names belong to no part of this model: {', '.join(unknown[:3])}"
    needed = (name for name in targets if is_ours(name) and not name.startswith("media_tokens."))
    missing = [name for name in needed if name not in given]
    if missing and not may_lack.issuperset(name.partition(".")[0] for name in missing):
        return f"{len(missing)} parts of this model are missing: {', '.join(missing[:3])}"
    return _not_to_fill(given, targets)


def _not_to_fill(given: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> str | None:
    quantised = [name for name in given if is_quantised(targets[name])]
    if quantised:
        return (
            f"{len(quantised)} tensors are of the LM's layers, which are in 4 bits here: "
            f"{quantised[0]}; give that LM by --lm-path"
        )
    for name, value in given.items():
        expected, got = tuple(targets[name].shape), tuple(value.shape)
        if expected != got:
            return f"{name}: expected {expected}, got {got}"
    return None


def is_ours(name: str) -> bool:
    """Whether a parameter is part of what Flamingo adds to the LM and the tower."""
    return name.startswith(("perceiver.", "media_tokens.")) or ".gated_cross_attn_layer." in name


def export_openflamingo(model: FlamingoNetwork) -> dict[str, Tensor]:
    """The weights under OpenFlamingo's names, media-token rows back in their matrices.

    As in its own checkpoints a tied head is there under both of its names, as one tensor.
    """
    lm = model.lang_encoder
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
    elsewhere = {id(embedding.weight), id(head.weight)}
    for name, parameter in model.named_parameters():  # of the LM and the tower, what trained
        is_own = is_ours(name) or is_adapter(name) or id(parameter) in elsewhere
        if parameter.requires_grad and not is_own:
            exported[name] = full_tensor(parameter)
    matrices = [values for _, values in export_matrices(model)]
    exported[f"lang_encoder.{module_name(lm, embedding)}.weight"] = matrices[0]
    exported[f"lang_encoder.{head_name}.weight"] = matrices[-1]
    return exported


def export_matrices(model: FlamingoNetwork) -> list[tuple[Tensor, Tensor]]:
    """The LM's input matrix, and with an untied LM its output matrix: as they are in the LM, and
    with the media-token rows in them."""
    embedding, head = embedding_and_head(model.lang_encoder)
    rows = model.media_tokens
    pairs = [(embedding.weight, rows.input_rows)]
    if rows.output_rows is not None:
        pairs.append((head.weight, rows.output_rows))
    return [(matrix, _with_rows(matrix, own, rows.token_ids)) for matrix, own in pairs]


def _with_rows(matrix: Tensor, rows: Tensor, token_ids: tuple[int, int]) -> Tensor:
    own = full_tensor(rows)
    # A frozen LM may be of lower precision than what trained.
    whole = full_tensor(matrix).to(torch.promote_types(matrix.dtype, own.dtype), copy=True)
    whole[list(token_ids)] = own.to(whole)
    return whole


def frozen_parts(names: Iterable[str]) -> tuple[str, ...]:
    """The `freeze` of the model that a checkpoint of our own form is of, by its names."""
    own = [name for name in names if not is_ours(name) and not is_adapter(name)]
    trained = {"vision": "vision_encoder.", "lm": "lang_encoder."}
    return tuple(part for part in FROZEN if not any(name.startswith(trained[part]) for name in own))


def trainable_names(model: FlamingoNetwork) -> list[str]:
    """Names of our own form, in the model's order."""
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return [name for name in model.state_dict() if is_ours(name) or name in trains]


def trainable_state_dict(model: FlamingoNetwork) -> dict[str, Tensor]:
    """Our own form: what a checkpoint holds, each tensor whole."""
    values = model.state_dict()
    return {name: full_tensor(values[name]) for name in trainable_names(model)}


def load_trainable(model: FlamingoNetwork, weights: Mapping[str, Tensor]) -> LoadReport:
    """Fills a model from `trainable_state_dict`.

    Whether the LM and the tower train may differ between the two: weights that trained are taken
    where they do not train now, and what did not train then is as it was loaded.
    """
    targets = model.state_dict(keep_vars=True)
    weights = _below_adapters(weights, targets)
    optional = {name for name in targets if not is_ours(name) and not is_adapter(name)}
    expected = set(trainable_names(model)) - optional | (optional & set(weights))
    if not any(is_adapter(name) for name in weights):
        # Of a model that had none: ours stay at their initial values, which change nothing.
        expected = {name for name in expected if not is_adapter(name)}
    report = report_load(weights, expected, {}, tied=model.media_tokens.tied)
    problem = None
    if set(weights) != expected:
        differ = sorted(set(weights) ^ expected)
        problem = (
            f"expected {len(expected)} tensors, got {len(weights)}; "
            f"different: {', '.join(differ[:3])}"
        )
    problem = problem or _not_to_fill(weights, targets)
    if problem is not None:
        logger.warning("%s", report.text())
        raise UserError(f"checkpoint: {problem}")
    for name, value in weights.items():
        assign(targets[name], value)
    return report
