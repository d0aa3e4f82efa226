"""The toy family: what it reads, how it is built, loaded and exported."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from flamingo.models.family import Before, ExportFormat, How, Lever, Saved
from flamingo.models.registry import FAMILIES, FamilyEntry
from flamingo.modules.checkpoint_files import read_header, read_weights
from flamingo.modules.load_report import report_load
from flamingo.modules.meta import materialise, parameters_on_meta
from flamingo.modules.placement import assign
from mmdata.errors import UserError
from mmdata.training_view.sequence import MediaTokenizer
from mmdata.training_view.tokenizer import load_tokenizer, num_rows
from tests.toy_family.model import SIDE, Toy
from tests.toy_family.options import NAME, TrainToy
from tests.toy_family.text import ToyText


class ToyFamily:
    """See `Family` for what each method is asked."""

    name = NAME
    parts: tuple[str, ...] = ("tokenizer_path", "toy_width")
    levers: tuple[Lever, ...] = (
        Lever(("parameters",), lambda options, _: options.toy_width > 1, "a smaller --toy-width"),
    )
    exports: Mapping[str, ExportFormat] = {}

    def image_size(self, options: TrainToy) -> int:
        return SIDE

    def feature_identity(self, options: TrainToy) -> str:
        raise UserError("a toy takes pictures, no features of them")

    def tokenizer(self, options: TrainToy) -> Any:
        return load_tokenizer(options.tokenizer_path, local_files_only=options.offline)

    def text_layout(self, tokenizer: MediaTokenizer, options: TrainToy) -> ToyText:
        return ToyText(tokenizer)

    def build(self, options: TrainToy, how: How) -> Toy:
        with parameters_on_meta():
            model = _make(self.tokenizer(options), options.toy_width).to(how.types.trained)
        if how.is_empty:
            return model
        place = device = torch.device("cpu")
        if how.rows is not None:
            how.rows.shard(model)
            place, device = how.rows.place, how.rows.device
        materialise(model, place, buffers=device)
        for name, parameter in model.named_parameters():
            digest = hashlib.sha256(f"{options.seed} {name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7]))
            assign(parameter, torch.randn(parameter.shape, generator=generator) * 0.1)
        if how.weights is not None:
            load_into(model, how.weights)
            if how.on_load is not None:
                how.on_load(
                    report_load(read_weights(how.weights), model.kept_names(), {}, tied=False)
                )
        return model

    def resumed(self, options: TrainToy, before: Before, *, is_told: bool) -> TrainToy:
        return options

    def load(self, saved: Saved, *, offline: bool) -> tuple[Toy, Any]:
        tokenizer = load_tokenizer(saved.tokenizer, local_files_only=offline)
        model = _make(tokenizer, saved.parts["toy_width"])
        load_into(model, saved.weights)
        return model.eval(), tokenizer

    def export(
        self,
        model: Toy,
        tokenizer: Any,
        folder: str,
        *,
        format: str,
        merge: bool,
        parts: Mapping[str, Any],
    ) -> int:
        raise UserError("--merge-lora: a toy has no language model; leave it out")


def _make(tokenizer: Any, width: int) -> Toy:
    ids = MediaTokenizer(tokenizer)
    return Toy(
        num_rows(tokenizer), width, media_id=ids.image_id, pad_id=ids.pad_id, end_id=ids.eos_id
    )


def load_into(model: Toy, path: str) -> None:
    """Fill a toy from a checkpoint or an export of one.

    Raises:
        UserError: it is of another model.
    """
    if read_header(path).record != model.identity():
        raise UserError(f"checkpoint {path}: expected {model.identity()}")
    weights = read_weights(path)
    for name, target in model.state_dict(keep_vars=True).items():
        assign(target, weights[name])


def add_toys() -> None:
    """Put the family in the table, in this process."""
    FAMILIES[NAME] = FamilyEntry(TrainToy, ToyFamily)
