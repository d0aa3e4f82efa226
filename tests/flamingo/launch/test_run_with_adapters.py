"""A run with adapters, from its first step to what others make of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from flamingo.inference.export import export
from flamingo.inference.export_options import Export
from flamingo.launch.run import train
from flamingo.models.flamingo.model import Flamingo
from flamingo.models.flamingo.options import Train
from flamingo.modules.freezing import is_adapter
from flamingo.modules.quantised import quantised_names
from flamingo.modules.sharded_files import tensors_in
from flamingo.train.checkpoint.trained import build, find_trained
from mmdata.errors import UserError

pytestmark = pytest.mark.slow
Options = Callable[..., Train]
CHANGES: dict[str, Any] = {"max_steps": 2, "learning_rate": 0.05, "lora_r": 2, "lora_dropout": 0.1}


def loaded(path: str) -> Flamingo:
    trained = find_trained(path)
    assert trained is not None
    return build(trained, offline=True)[0]


def logits(model: Flamingo) -> Tensor:
    end, image = model.media_tokens.token_ids
    ids = torch.tensor([[image, 5, 6, end, 7, 8, 9]])
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found: Tensor = model(ids, images=images, images_per_sample=[1]).logits
    return found


@pytest.mark.parametrize("kind", ["qlora", pytest.param("lora", marks=pytest.mark.matrix)])
def test_what_is_trained_is_saved_resumed_rebuilt_and_merged(
    kind: Literal["lora", "qlora"], run_options: Options
) -> None:
    options = run_options("run", lm_adapter=kind, **CHANGES)
    first = train(options)
    assert first.checkpoint is not None
    fit = json.loads((Path(first.checkpoint) / "identity.json").read_text())
    assert fit["adapters"] == {
        "kind": kind,
        "r": 2,
        "alpha": 32.0,
        "targets": ["attention.dense", "query_key_value"],
    }
    there = set(tensors_in(first.checkpoint))
    weights = {name for name in there if name.startswith("model.") and is_adapter(name)}
    assert len(weights) == 4 * 2 * 2  # layers, projections, A and B
    state = {name for name in there if name.startswith("optimizer.")}
    assert {f"optimizer.{name.removeprefix('model.')}.exp_avg" for name in weights} <= state
    assert not any(".base_layer." in name for name in there)

    second = train(replace(options, max_steps=3))
    assert (second.resumed_from, second.steps) == (2, 3)
    straight = train(replace(options, max_steps=3, run_name=f"{options.run_name}-straight"))
    model = loaded(options.run_name)
    assert len(quantised_names(model)) == (16 if kind == "qlora" else 0)
    expected = logits(model)
    # The dropout draws the same after a resume: its generator is in the checkpoint.
    assert torch.equal(logits(loaded(straight.folder)), expected)

    merged = export(
        Export(run=options.run_name, format="safetensors", merge_lora=True, offline=True)
    )
    ordinary = loaded(merged.folder)
    assert not any(is_adapter(name) for name, _ in ordinary.named_parameters())
    torch.testing.assert_close(logits(ordinary), expected, atol=1e-5, rtol=1e-5)


def test_other_adapters_than_the_checkpoints_are_refused_before_loading(
    run_options: Options,
) -> None:
    options = run_options("run", lm_adapter="lora", **CHANGES | {"max_steps": 1})
    first = train(options)
    told = f"checkpoint {first.checkpoint}"
    plain: dict[str, Any] = {"lm_adapter": "none", "lora_r": 16, "lora_dropout": 0.0}
    with pytest.raises(UserError, match=f"^{told}: was written with --lm-adapter lora, not none"):
        train(replace(options, max_steps=2, **plain))
    with pytest.raises(
        UserError, match=f"^{told} does not fit: adapters: expected lora r=4 .* r=2"
    ):
        train(replace(options, max_steps=2, lora_r=4))
    fresh = replace(options, run_name=f"{options.run_name}-fresh", init_from=options.run_name)
    with pytest.raises(UserError, match=f"^{told} does not fit: adapters: expected none, got lora"):
        train(replace(fresh, **plain))
    with pytest.raises(UserError, match=r"adapters: expected qlora r=2 .*, got lora r=2"):
        train(replace(fresh, lm_adapter="qlora"))


def test_adapters_start_from_a_run_that_had_none(run_options: Options) -> None:
    first = train(run_options("first", max_steps=2, learning_rate=0.05))
    options = run_options("second", lm_adapter="lora", init_from=first.folder, max_steps=1)
    second = train(replace(options, learning_rate=0.0))
    assert torch.equal(logits(loaded(second.folder)), logits(loaded(first.folder)))
