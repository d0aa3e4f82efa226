"""Whether tokenizer, LM, tower and checkpoint belong together, found out before anything loads.

All of it comes from configs, the tokenizer and the headers of checkpoints. What does not fit is
one line with what was expected and what was found, as its consequences otherwise are silent:
resizing shrinks a vocabulary, a non-strict load leaves a block at its initial values.
"""

import os
import re
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from flamingo.models.flamingo.checkpoint import INPUT_NAMES, OUTPUT_NAMES, plain_name
from flamingo.models.flamingo.identity import Identity
from flamingo.models.flamingo.options import NAME
from flamingo.modules.adapter_settings import AdapterSettings, tell
from flamingo.modules.checkpoint_files import FAMILY_KEY, CheckpointHeader, read_header
from flamingo.modules.fingerprint import lm_fingerprint, tokenizer_fingerprint
from flamingo.modules.language_model import find_decoder_layers
from mmdata.errors import UserError
from mmdata.training_view.sequence import EOC_TOKEN, MEDIA_TOKEN
from mmdata.training_view.tokenizer import num_rows, token_ids

MAX_UNUSED_SHARE = 0.1
"""Of an LM's rows, without a token: vocabularies are padded, by 2.3% in the widest case known."""

_BLOCK = re.compile(
    r"^(?:lang_encoder\.)?(?:(?P<layers>.+)\.)?(?P<index>\d+)\.gated_cross_attn_layer\.(?P<rest>.+)$"
)
_BLOCK_V1 = re.compile(r"^lang_encoder\.gated_cross_attn_layers\.(?P<index>\d+)\.(?P<rest>.+)$")
_MATRIX = re.compile(
    rf"^lang_encoder\.(?:.+\.)?(?:{'|'.join(INPUT_NAMES + OUTPUT_NAMES)})\.weight$"
)


def describe(
    lm_config: PretrainedConfig,
    tokenizer: Any,
    *,
    vision_width: int,
    cross_attn_every_n_layers: int,
    lm_path: str | None = None,
    cache_dir: str | None = None,
    adapters: AdapterSettings | None = None,
) -> Identity:
    """The facts of a model that is about to be built; the tokenizer has the media tokens."""
    text: Any = lm_config.get_text_config(decoder=True)
    ids = token_ids(tokenizer)
    return Identity(
        family=lm_config.model_type,
        hidden_size=text.hidden_size,
        num_layers=text.num_hidden_layers,
        vision_width=vision_width,
        cross_attn_every_n_layers=cross_attn_every_n_layers,
        rows=num_rows(tokenizer),
        special_tokens={EOC_TOKEN: ids.eoc, MEDIA_TOKEN: ids.media, tokenizer.pad_token: ids.pad},
        tokenizer_sha256=tokenizer_fingerprint(tokenizer),
        lm_sha256=None if lm_path is None else lm_fingerprint(lm_path, cache_dir),
        adapters=None if adapters is None else adapters.record(),
    )


def check_fit(
    lm_config: PretrainedConfig,
    tokenizer: Any,
    *,
    vision_width: int,
    cross_attn_every_n_layers: int = 1,
    lm_path: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    decoder_layers_attr_name: str | None = None,
    cache_dir: str | None = None,
    adapters: AdapterSettings | None = None,
) -> Identity:
    """Raises UserError with one line on what does not fit; returns what to record."""
    check_tokenizer(lm_config, tokenizer)
    fit = describe(
        lm_config,
        tokenizer,
        vision_width=vision_width,
        cross_attn_every_n_layers=cross_attn_every_n_layers,
        lm_path=lm_path,
        cache_dir=cache_dir,
        adapters=adapters,
    )
    if not 1 <= cross_attn_every_n_layers <= fit.num_layers:
        raise UserError(
            f"cross_attn_every_n_layers: expected 1 to {fit.num_layers} (the LM's layers), "
            f"got {cross_attn_every_n_layers}"
        )
    if checkpoint is not None:
        header = read_header(checkpoint)
        if header.record is not None:
            found = _differences_of_records(fit.record(), header.record)
        else:
            layers = decoder_layers_attr_name or _layers_name(lm_config)
            found = _differences_of_shapes(fit, layers, header)
        if found:
            raise UserError(f"checkpoint {header.path} does not fit: {'; '.join(found)}")
    return fit


def check_tokenizer(lm_config: PretrainedConfig, tokenizer: Any) -> None:
    """Whether a tokenizer can be this LM's."""
    text: Any = lm_config.get_text_config(decoder=True)
    rows: int = text.vocab_size
    added = {i for i in tokenizer.get_added_vocab().values() if i >= rows}
    used = [i for i in tokenizer.get_vocab().values() if i not in added]
    if max(used) >= rows:
        raise UserError(
            f"tokenizer: expected ids below {rows} (rows of the LM, {lm_config.model_type}), "
            f"got {max(used)}; is it another LM's?"
        )
    if rows - max(used) - 1 > MAX_UNUSED_SHARE * rows:
        raise UserError(
            f"tokenizer: expected about {rows} tokens (rows of the LM, {lm_config.model_type}), "
            f"got {max(used) + 1}; is it another LM's?"
        )
    if _contradicts(text.eos_token_id, tokenizer.eos_token_id) and _contradicts(
        text.bos_token_id, tokenizer.bos_token_id
    ):
        raise UserError(
            f"tokenizer: expected the LM's end-of-text id {text.eos_token_id}, "
            f"got {tokenizer.eos_token_id}; is it another LM's?"
        )


def _contradicts(of_lm: int | list[int] | None, of_tokenizer: int | None) -> bool:
    """Whether both know the id and differ; an LM may have several."""
    if of_lm is None or of_tokenizer is None:
        return False
    return of_tokenizer not in (of_lm if isinstance(of_lm, list) else [of_lm])


def _layers_name(lm_config: PretrainedConfig) -> str:
    with torch.device("meta"):
        return find_decoder_layers(AutoModelForCausalLM.from_config(lm_config))[0]


def _differences_of_records(expected: dict[str, Any], got: dict[str, Any]) -> list[str]:
    found = []
    got = {FAMILY_KEY: NAME} | got  # others came later, and say so
    for name, value in expected.items():
        other = got.get(name)
        unknown = name == "lm_sha256" and (value is None or other is None)
        if name == "adapters":
            # Weights of before there were adapters are a place to start from.
            if other is not None and value != other:
                found.append(f"{name}: expected {tell(value)}, got {tell(other)}")
        elif value != other and not unknown:
            found.append(f"{name}: expected {_short(value)}, got {_short(other)}")
    return found


def _short(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else str(value)


def _differences_of_shapes(fit: Identity, layers: str, header: CheckpointHeader) -> list[str]:
    """For checkpoints without a record: OpenFlamingo's, released or trained."""
    indices: set[int] = set()
    found: dict[str, tuple[object, object]] = {}
    for raw_name, shape in header.shapes.items():
        name = plain_name(raw_name)
        if match := _BLOCK_V1.match(name) or _BLOCK.match(name):
            indices.add(int(match["index"]))
            path = match.groupdict().get("layers")
            if path is not None and path != layers:
                found["decoder layers"] = (f"{layers} ({fit.family})", path)
            if match["rest"] == "attn.norm.weight" and shape != (fit.hidden_size,):
                found["hidden size"] = (fit.hidden_size, shape[0])
        elif name == "perceiver.latents" and shape[-1] != fit.vision_width:
            found["vision width"] = (fit.vision_width, shape[-1])
        elif _MATRIX.match(name) and shape[0] != fit.rows:
            found["rows"] = (fit.rows, shape[0])
    n = fit.cross_attn_every_n_layers
    expected = set(range(n - 1, fit.num_layers, n))
    if indices != expected:
        found["cross-attention before layers"] = (_listed(expected), _listed(indices))
    return [f"{what}: expected {want}, got {got}" for what, (want, got) in found.items()]


def _listed(indices: set[int]) -> str:
    return " ".join(map(str, sorted(indices))) or "none"
