"""The family of Flamingo: what it reads, how it is built, loaded and exported."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from flamingo.data.text_layout import DecoderText
from flamingo.models.family import Before, ExportFormat, How, Lever, Saved, Types
from flamingo.models.flamingo.build import NoWeights, WholeWeights, create_model_and_transforms
from flamingo.models.flamingo.checkpoint import frozen_parts
from flamingo.models.flamingo.export import OPENFLAMINGO_FILE, export_model
from flamingo.models.flamingo.media_rows import with_kept_rows
from flamingo.models.flamingo.model import Flamingo
from flamingo.models.flamingo.options import NAME, Train
from flamingo.models.flamingo.parallelize import OwnRows
from flamingo.modules.absent_tower import tower_identity
from flamingo.modules.adapter_options import check_same_adapters, settings_of
from flamingo.modules.adapter_settings import AdapterSettings
from flamingo.modules.checkpoint_files import read_header
from flamingo.modules.vision import configured_image_size, hub_offline, tower_name
from mmdata.training_view.model_names import refuse_missing_folder
from mmdata.training_view.sequence import MediaTokenizer
from mmdata.training_view.tokenizer import load_tokenizer


class FlamingoFamily:
    """See `Family` for what each method is asked."""

    name = NAME
    parts: tuple[str, ...] = (
        "lm_path",
        "tokenizer_path",
        "vision_encoder_path",
        "vision_encoder_pretrained",
        "cross_attn_every_n_layers",
        "vision_tokens",
    )
    levers: tuple[Lever, ...] = (
        Lever(
            ("activations",),
            lambda options, _: options.loss_kernel == "plain",
            "--loss-kernel auto (the loss in chunks)",
        ),
        Lever(
            ("parameters",),
            lambda options, _: options.lm_adapter != "qlora",
            "--lm-adapter qlora (the LM in 4 bits)",
        ),
        Lever(
            ("gradients", "optimizer", "parameters"),
            lambda options, _: options.cross_attn_every_n_layers < 4,
            "a larger --cross-attn-every-n-layers (another model)",
        ),
    )
    exports: Mapping[str, ExportFormat] = {
        "openflamingo": ExportFormat(
            OPENFLAMINGO_FILE, "OpenFlamingo's evaluation loads it; so does --init-from"
        )
    }

    def image_size(self, options: Train) -> int:
        """Pixels of a side of what the vision tower takes."""
        return configured_image_size(tower_name(options.vision_encoder_path))

    def feature_identity(self, options: Train) -> str:
        """The identity of the vision tower, and of which of its tokens are taken."""
        tower = tower_name(options.vision_encoder_path)
        with hub_offline(offline=options.offline):
            pretrained = None if ":" in tower else options.vision_encoder_pretrained
            return tower_identity(tower, pretrained, options.vision_tokens)

    def tokenizer(self, options: Train) -> Any:
        """The LM's, or another that is named."""
        refuse_missing_folder(f"--lm-path {options.lm_path}", options.lm_path)
        path = options.tokenizer_path
        if path is not None:
            refuse_missing_folder(f"--tokenizer-path {path}", path)
        return load_tokenizer(
            path or options.lm_path,
            local_files_only=options.offline,
            trust_remote_code=options.trust_remote_code,
        )

    def text_layout(self, tokenizer: MediaTokenizer, options: Train) -> DecoderText:
        """The LM reads and writes one row."""
        return DecoderText(tokenizer)

    def build(self, options: Train, how: How) -> Flamingo:
        """From tower and LM as they were published."""
        tower, pretrained = _tower(options.vision_encoder_path, options.vision_encoder_pretrained)
        types: dict[str, Any] = part_types(options.freeze, how.types)
        model, _, _ = create_model_and_transforms(
            tower,
            pretrained,
            options.lm_path,
            options.tokenizer_path or options.lm_path,
            cross_attn_every_n_layers=options.cross_attn_every_n_layers,
            freeze_lm_embeddings=options.freeze_lm_embeddings,
            vision_tokens=options.vision_tokens,
            vision_chunk=options.vision_chunk,
            loss_kernel=options.loss_kernel,
            new_token_init=options.new_token_init,
            train_output_rows=options.train_output_rows,
            seed=options.seed,
            init_from=how.weights,
            offline=options.offline,
            trust_remote_code=options.trust_remote_code,
            gradient_checkpointing=options.gradient_checkpointing,
            adapters=settings_of(options),
            checkpoint_policy=options.checkpoint_policy or "full",
            freeze=options.freeze.split(","),
            **types,
            on_load=how.on_load,
            without_tower=how.has_features,
            weights=_weights(how),
        )
        model.normalization = dataclasses.replace(
            model.normalization, exact=options.exact_preprocess
        )
        return model

    def resumed(self, options: Train, before: Before, *, is_told: bool) -> Train:
        """With the adapters of before, and the rows of the media tokens that trained."""
        check_same_adapters(before.options, options, before.checkpoint)
        return with_kept_rows(options, before, is_told=is_told)

    def load(self, saved: Saved, *, offline: bool) -> tuple[Flamingo, Any]:
        """With what trained as its weights say."""
        header, parts = read_header(saved.weights), saved.parts
        model, _, tokenizer = create_model_and_transforms(
            *_tower(parts["vision_encoder_path"], parts["vision_encoder_pretrained"]),
            parts["lm_path"],
            saved.tokenizer,
            cross_attn_every_n_layers=parts["cross_attn_every_n_layers"],
            vision_tokens=parts["vision_tokens"],
            init_from=saved.weights,
            adapters=AdapterSettings.from_record(header.record),
            freeze=frozen_parts(header.shapes),
            offline=offline,
            trust_remote_code=saved.trust_remote_code,
        )
        return model.eval(), tokenizer

    export = staticmethod(export_model)


def part_types(freeze: str, types: Types) -> dict[str, torch.dtype]:
    """The `lm_dtype`, `tower_dtype` and `own_dtype` of `create_model_and_transforms`.

    Args:
        freeze: the parts that do not train, as --freeze names them.
        types: of the run.
    """
    frozen = freeze.split(",")
    return {
        "lm_dtype": types.frozen if "lm" in frozen else types.trained,
        "tower_dtype": types.frozen if "vision" in frozen else types.trained,
        "own_dtype": types.trained,
    }


def _tower(path: str, pretrained: str | None) -> tuple[str, str | None]:
    """open_clip's name of a tower, and its weights where the name does not bring them."""
    tower = tower_name(path)
    return tower, None if tower.startswith("local-dir:") else pretrained


def _weights(how: How) -> WholeWeights:
    if how.rows is not None:
        return OwnRows(how.rows)
    return NoWeights() if how.is_empty else WholeWeights()
