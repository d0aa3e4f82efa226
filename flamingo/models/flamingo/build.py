"""`create_model_and_transforms`: OpenFlamingo's function and argument names, and ours.

In order: tokenizer and configs, the check that all belongs together, then weights.

- clip_vision_encoder_path, clip_vision_encoder_pretrained: an open_clip model and its weights, a
  tag or a file.
- lang_encoder_path, tokenizer_path: hub names or folders. Remote code only runs when asked for.
- cross_attn_every_n_layers: cross-attention stands before layer i where (i+1) % n == 0.
- use_local_files: LM and tokenizer from this machine only. `offline`: no network at all, the
  vision tower included.
- decoder_layers_attr_name: where the LM's layers lie, if structure does not tell.
- freeze_lm_embeddings: the media tokens' input rows keep their initial values (and are saved).
- new_token_init: their initial values, 'normal' (N(0, 0.02) from the seed alone) or 'mean' (of
  the LM's rows).
- init_from: a checkpoint, OpenFlamingo's (released or trained) or ours, checked before loading.
- on_load: is told what `init_from` filled, as a table.
- adapters: LoRA adapters in the LM, and whether it is quantised below them.
- lm_dtype, tower_dtype: of the LM and the tower; what Flamingo adds is fp32, or `own_dtype`.
- checkpoint_policy: what `gradient_checkpointing` recomputes; see `recompute`.
- without_tower: for runs on precomputed features: no tower, and None for the image processor.
- weights: how they get into the model, `WholeWeights` unless given.
- flamingo_options: `vision_tokens`, `vision_chunk`, `train_output_rows`, `freeze`, `loss_kernel`;
  see `Flamingo`.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from flamingo.data.decode import normalization_of
from flamingo.models.flamingo.checkpoint import load_openflamingo, load_trainable
from flamingo.models.flamingo.compat import check_fit
from flamingo.models.flamingo.model import Flamingo
from flamingo.modules.absent_tower import absent_tower
from flamingo.modules.adapter_settings import AdapterSettings
from flamingo.modules.adapters import inject_adapters
from flamingo.modules.checkpoint_files import read_weights
from flamingo.modules.hub import Hub
from flamingo.modules.language_model import embedding_and_head, resize_vocabulary
from flamingo.modules.load_report import LoadReport
from flamingo.modules.meta import parameters_on_meta
from flamingo.modules.quantised import quantise_linears
from flamingo.modules.recompute import Recompute
from flamingo.modules.vision import configured_width, empty_tower, hub_offline, load_tower
from mmdata.training_view.tokenizer import num_rows, token_ids


class WholeWeights:
    """Parts are loaded with their weights, on the CPU, and put together."""

    def tower(
        self, name: str, pretrained: str | None, *, cache_dir: str | None, offline: bool
    ) -> tuple[nn.Module, Any]:
        """(tower, image processor); arguments as `load_tower`."""
        return load_tower(name, pretrained, cache_dir=cache_dir, offline=offline)

    def language_model(
        self, hub: Hub, dtype: torch.dtype, attn_implementation: str | None
    ) -> nn.Module:
        """The LM."""
        return hub.language_model(dtype, attn_implementation)

    def quantise(self, lang_encoder: nn.Module, attr_name: str | None) -> None:
        """Puts the matrices of the LM's layers in NF4, one by one."""
        quantise_linears(lang_encoder, attr_name=attr_name)

    def assemble(
        self,
        tower: nn.Module,
        lang_encoder: nn.Module,
        tokenizer: Any,
        *,
        seed: int,
        new_token_init: str,
        adapters: AdapterSettings | None,
        own_dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> Flamingo:
        """A Flamingo around a tower and an LM that are there already; `options` are Flamingo's.

        With parameters on the meta device nothing is filled.
        """
        rows, ids = num_rows(tokenizer), token_ids(tokenizer)
        old_rows = embedding_and_head(lang_encoder)[0].weight.shape[0]
        resize_vocabulary(lang_encoder, rows)
        if adapters is not None:
            attr_name = options.get("decoder_layers_attr_name")
            inject_adapters(lang_encoder, adapters, attr_name=attr_name, dtype=own_dtype)
        model = Flamingo(
            tower,
            lang_encoder,
            eoc_token_id=ids.eoc,
            media_token_id=ids.media,
            pad_token_id=ids.pad,
            **options,
        )
        for part in (model.perceiver, model.media_tokens, *model.cross_attention_blocks):
            part.to(own_dtype)
        if not model.perceiver.latents.is_meta:
            model.initialise(seed, new_token_init=new_token_init, old_rows=old_rows)
        return model


class NoWeights(WholeWeights):
    """Parameters stay on the meta device, unfilled; configs are all that has to be there."""

    def tower(
        self, name: str, pretrained: str | None, *, cache_dir: str | None, offline: bool
    ) -> tuple[nn.Module, Any]:
        return empty_tower(name, offline=offline)

    def language_model(
        self, hub: Hub, dtype: torch.dtype, attn_implementation: str | None
    ) -> nn.Module:
        with parameters_on_meta():
            return hub.empty_language_model(dtype, attn_implementation)

    def assemble(self, *parts: Any, **options: Any) -> Flamingo:
        with parameters_on_meta():
            return super().assemble(*parts, **options)


_WHOLE = WholeWeights()  # has no state


def create_model_and_transforms(
    clip_vision_encoder_path: str,
    clip_vision_encoder_pretrained: str | None,
    lang_encoder_path: str,
    tokenizer_path: str,
    cross_attn_every_n_layers: int = 1,
    use_local_files: bool = False,  # noqa: FBT001, FBT002 (OpenFlamingo's order)
    decoder_layers_attr_name: str | None = None,
    freeze_lm_embeddings: bool = False,  # noqa: FBT001, FBT002
    cache_dir: str | None = None,
    *,
    new_token_init: str = "normal",
    seed: int = 42,
    init_from: str | os.PathLike[str] | None = None,
    offline: bool = False,
    trust_remote_code: bool = False,
    lm_dtype: torch.dtype = torch.float32,
    attn_implementation: str | None = None,
    tower_dtype: torch.dtype = torch.float32,
    gradient_checkpointing: bool = False,
    checkpoint_policy: Recompute = "full",
    adapters: AdapterSettings | None = None,
    on_load: Callable[[LoadReport], None] | None = None,
    without_tower: bool = False,
    weights: WholeWeights = _WHOLE,
    **flamingo_options: Any,
) -> tuple[Flamingo, Any, Any]:
    """Builds a Flamingo; returns (model, image_processor, tokenizer). Arguments: see the module."""
    hub = Hub(
        lang_encoder_path=lang_encoder_path,
        local_files_only=use_local_files or offline,
        trust_remote_code=trust_remote_code,
        cache_dir=cache_dir,
    )
    every_n: dict[str, Any] = {
        "cross_attn_every_n_layers": cross_attn_every_n_layers,
        "decoder_layers_attr_name": decoder_layers_attr_name,
    }
    with hub_offline(offline=offline):
        tokenizer = hub.tokenizer(tokenizer_path)
        lm_config = hub.lm_config()
        family = lm_config.get_text_config(decoder=True).model_type
        adapters = adapters and adapters.resolved(family)
        files: dict[str, Any] = {"lm_path": lang_encoder_path, "checkpoint": init_from}
        files |= {"cache_dir": cache_dir, "adapters": adapters}
        check = partial(check_fit, lm_config, tokenizer, **files, **every_n)
        if (width := configured_width(clip_vision_encoder_path)) is not None:
            check(vision_width=width)
        tower, image_processor = (absent_tower if without_tower else weights.tower)(
            clip_vision_encoder_path,
            clip_vision_encoder_pretrained,
            cache_dir=cache_dir,
            offline=offline,
        )
        tower.to(tower_dtype)
        lm = weights.language_model(hub, dtype=lm_dtype, attn_implementation=attn_implementation)
        if adapters is not None and adapters.is_quantised:
            weights.quantise(lm, decoder_layers_attr_name)
    model = weights.assemble(
        tower,
        lm,
        tokenizer,
        seed=seed,
        new_token_init=new_token_init,
        adapters=adapters,
        freeze_lm_embeddings=freeze_lm_embeddings,
        **every_n,
        **flamingo_options,
    )
    model.facts = check(vision_width=model.vis_dim)  # again, with all files at hand
    model.normalization = normalization_of(image_processor)
    if init_from is not None:
        load_weights(model, init_from, on_load)
    model.set_activation_checkpointing(checkpoint_policy if gradient_checkpointing else None)
    return model, image_processor, tokenizer


def load_weights(
    model: Flamingo,
    path: str | os.PathLike[str],
    on_load: Callable[[LoadReport], None] | None = None,
) -> None:
    """A checkpoint in OpenFlamingo's form or in ours, whichever it is."""
    weights = read_weights(path)
    ours = any(name.startswith("media_tokens.") for name in weights)
    report = load_trainable(model, weights) if ours else load_openflamingo(model, weights)
    if on_load is not None:
        on_load(report)
