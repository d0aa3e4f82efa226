"""What a checkpoint fills of a model, as a table; and OpenFlamingo's forms by their key lists."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig

from flamingo.models.flamingo.checkpoint import (
    export_openflamingo,
    load_openflamingo,
    load_trainable,
    trainable_state_dict,
)
from flamingo.models.flamingo.compat import check_fit
from flamingo.models.flamingo.model import Flamingo
from flamingo.modules.load_report import LoadReport, compare_embeddings
from mmdata.errors import UserError
from tests.flamingo.models.flamingo.openflamingo_keys import MODELS, checkpoint_shapes
from tests.flamingo.models.flamingo.tiny_lms import (
    LAYERS,
    VOCAB,
    WIDTH,
    make_flamingo,
    make_lm,
    wrap,
)


def rows_of(report: LoadReport) -> dict[str, tuple[int, int, int, bool]]:
    return {g.name: (g.in_file, g.in_model, g.loaded, g.expected) for g in report.groups}


def test_all_of_ours_is_taken_and_the_rest_is_the_lms_own() -> None:
    model = make_flamingo("llama")
    report = load_openflamingo(wrap(make_lm("llama")), export_openflamingo(model))
    assert rows_of(report) == {
        "perceiver": (69, 69, 69, True),
        "cross-attention": (22, 22, 22, True),
        "media-token rows, input": (1, 1, 1, True),
        "media-token rows, output": (1, 1, 1, True),
        "LM embeddings": (2, 2, 2, True),
        "LM, all else": (0, 37, 0, True),
        "vision encoder": (0, 32, 0, True),
    }
    assert "text embeddings equal to the LM's" in report.text()


def test_our_own_form_has_the_same_table() -> None:
    model = make_flamingo("opt")
    report = load_trainable(wrap(make_lm("opt")), trainable_state_dict(model))
    assert report.text() == (
        "                          in the file  in the model  loaded  expected\n"
        "perceiver                          69            69      69       yes\n"
        "cross-attention                    22            22      22       yes\n"
        "media-token rows, input             1             1       1       yes\n"
        "media-token rows, output            0             0       0       yes  "
        "tied to the input's"
    )


def test_rows_that_are_not_in_the_file_are_said_to_be_missing() -> None:
    weights = export_openflamingo(make_flamingo("gptj"))
    for name in ("lang_encoder.transformer.wte.weight", "lang_encoder.lm_head.weight"):
        del weights[name]
    report = load_openflamingo(wrap(make_lm("gptj")), weights)
    table = rows_of(report)
    assert table["media-token rows, input"] == (0, 1, 0, False)
    assert table["media-token rows, output"] == (0, 1, 0, True)  # it never saves these
    assert report.kept_initial == ["media_tokens.input_rows", "media_tokens.output_rows"]


def test_tables_that_older_transformers_saved_are_left_out() -> None:
    model = make_flamingo("gpt_neox")
    weights = export_openflamingo(model)
    keys = tiny(MODELS["4B"])
    tables = checkpoint_shapes(keys, width=64, computed=True).keys() - checkpoint_shapes(keys)
    weights |= {name: torch.ones(4) for name in tables}
    report = load_openflamingo(wrap(make_lm("gpt_neox")), weights)
    assert rows_of(report)["LM tables"] == (12, 0, 0, True)


def test_another_lm_of_the_same_shape_is_known_by_its_embeddings(
    caplog: pytest.LogCaptureFixture,
) -> None:
    weights = export_openflamingo(make_flamingo("llama"))
    other = make_lm("llama")
    with torch.no_grad():
        other.get_input_embeddings().weight.normal_(std=0.2)  # type: ignore[operator]
    model = wrap(other)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    message = r"expected this LM's text embeddings, got another's \(mean cosine -?0\.0"
    with pytest.raises(UserError, match=message):
        load_openflamingo(model, weights)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert "LM embeddings                       2             2" in caplog.text


def test_a_fine_tuned_lm_is_taken_and_noted() -> None:
    weights = export_openflamingo(make_flamingo("llama"))
    name = "lang_encoder.model.embed_tokens.weight"
    weights[name] = weights[name] + 0.01 * torch.randn(weights[name].shape)
    report = load_openflamingo(wrap(make_lm("llama")), weights)
    assert "not quite this LM's (mean cosine 0.99" in report.text()


def test_what_belongs_nowhere_is_in_the_table_before_it_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    weights = export_openflamingo(make_flamingo("opt")) | {"perceiver.extra": torch.zeros(1)}
    with pytest.raises(UserError, match=r"1 names belong to no part of this model"):
        load_openflamingo(wrap(make_lm("opt")), weights)
    (line,) = (line for line in caplog.text.splitlines() if line.startswith("unknown"))
    assert line.split()[:5] == ["unknown", "1", "0", "0", "NO"]


def test_a_matrix_of_lower_precision_is_compared_in_its_own() -> None:
    values = torch.randn(10, 8)
    assert compare_embeddings(values.bfloat16(), values, 10) is None
    assert compare_embeddings(values, values.bfloat16().float(), 10) == pytest.approx(1, abs=1e-3)
    values[9] += 1
    assert compare_embeddings(values, values, 9) is None


# ---- OpenFlamingo's key lists


def tiny(model: dict[str, Any]) -> dict[str, Any]:
    return model | {"hidden": WIDTH, "layers": LAYERS, "every": 2, "rows": VOCAB}


@pytest.mark.parametrize("name", ["3B", "4B", "9B of v1"])
def test_our_export_holds_what_theirs_does(name: str) -> None:
    """And an untied or tied `lm_head` beside it, which theirs lacks."""
    model = tiny(MODELS[name])
    exported = export_openflamingo(make_flamingo(model["family"]))
    expected = checkpoint_shapes(model, width=64)
    assert {k: tuple(v.shape) for k, v in exported.items() if k in expected} == expected
    assert exported.keys() - expected.keys() <= {"lang_encoder.lm_head.weight"}


def filled(shapes: dict[str, tuple[int, ...]], model: Flamingo) -> dict[str, Tensor]:
    """Values for a key list; matrices are the LM's own, since it is the same LM."""
    own = model.lang_encoder.get_input_embeddings().weight  # type: ignore[operator]
    return {
        name: own.detach().clone() if shape == tuple(own.shape) else torch.randn(shape)
        for name, shape in shapes.items()
        if "embed_out" not in name
    }


@pytest.mark.parametrize("name", ["3B", "4B", "9B of v1"])
@pytest.mark.parametrize("v1", [False, True])
@pytest.mark.parametrize("form", ["released", "training"])
def test_every_spelling_fills_every_part(name: str, v1: bool, form: str) -> None:
    keys = tiny(MODELS[name])
    model = wrap(make_lm(keys["family"]))
    weights: dict[str, Any] = filled(checkpoint_shapes(keys, width=64, v1=v1), model)
    block = f"lang_encoder.{keys['list']}.3.gated_cross_attn_layer.ff.1.weight"
    theirs = weights["lang_encoder.gated_cross_attn_layers.3.ff.1.weight" if v1 else block]
    if form == "training":
        weights = {"epoch": 0, "model_state_dict": {f"module.{n}": v for n, v in weights.items()}}
    report = load_openflamingo(model, weights)
    table = rows_of(report)
    assert table["perceiver"] == (69, 69, 69, True)
    assert table["cross-attention"] == (22, 22, 22, True)
    assert table["media-token rows, input"] == (1, 1, 1, True)
    assert torch.equal(model.state_dict()[block], theirs)


class RowsOnly:
    """A tokenizer as far as the check looks: so many tokens, the last three added."""

    def __init__(self, rows: int) -> None:
        self.added = {"<|endofchunk|>": rows - 3, "<image>": rows - 2, "<PAD>": rows - 1}
        self.vocabulary = {str(i): i for i in range(rows - 3)} | self.added
        self.pad_token, self.eos_token_id, self.bos_token_id = "<PAD>", None, None

    def __len__(self) -> int:
        return len(self.vocabulary)

    def get_vocab(self) -> dict[str, int]:
        return self.vocabulary

    def get_added_vocab(self) -> dict[str, int]:
        return self.added

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return [self.vocabulary[token] for token in tokens]

    @property
    def pad_token_id(self) -> int:
        return self.added["<PAD>"]


def write_header(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A safetensors file of any size without its data: nothing may read it before the check."""
    head = json.dumps(
        {n: {"dtype": "F32", "shape": s, "data_offsets": [0, 0]} for n, s in shapes.items()}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head)
    return path


def config_of(model: dict[str, Any], **changes: Any) -> Any:
    sizes = {
        "hidden_size": model["hidden"],
        "num_hidden_layers": model["layers"],
        "vocab_size": model["rows"] - 3,
        "num_attention_heads": 32,
    } | changes
    return AutoConfig.for_model(model["family"], **sizes)


@pytest.mark.parametrize(("name", "v1"), [*((name, False) for name in MODELS), ("9B of v1", True)])
def test_released_sizes_are_checked_before_anything_loads(
    name: str, v1: bool, tmp_path: Path
) -> None:
    model = MODELS[name]
    path = write_header(tmp_path / "x.safetensors", checkpoint_shapes(model, v1=v1))
    n, rows = model["every"], model["rows"]
    arguments: dict[str, Any] = {
        "vision_width": 1024,
        "checkpoint": path,
        "decoder_layers_attr_name": model["list"],
    }
    tokenizer = RowsOnly(rows)
    fit = check_fit(config_of(model), tokenizer, cross_attn_every_n_layers=n, **arguments)
    assert (fit.rows, fit.num_layers) == (rows, model["layers"])
    wrong: list[tuple[dict[str, Any], Any, int, str]] = [
        ({}, tokenizer, 2 * n, "cross-attention before layers: expected "),
        ({}, RowsOnly(rows + 1), n, f"rows: expected {rows + 1}, got {rows}"),
        ({"hidden_size": 1024}, tokenizer, n, f"hidden size: expected 1024, got {model['hidden']}"),
    ]
    for changes, other, every, message in wrong:
        config = config_of(model, **{"vocab_size": len(other) - 3} | changes)
        with pytest.raises(UserError, match=message):
            check_fit(config, other, cross_attn_every_n_layers=every, **arguments)
