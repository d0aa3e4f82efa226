"""What trains: all of it has a gradient, nothing else does, and dropout is where training is."""

import pytest
import torch

from flamingo.models.flamingo.checkpoint import (
    export_openflamingo,
    frozen_parts,
    is_ours,
    load_openflamingo,
    load_trainable,
    trainable_state_dict,
)
from tests.flamingo.models.flamingo.tiny_lms import make_flamingo

from .test_recompute import loss_of

FREEZE = [("vision", "lm"), ("vision",), ("lm",), ()]


def part_of(name: str) -> str:
    if is_ours(name):
        return "ours"
    return "vision" if name.startswith("vision_encoder.") else "lm"


@pytest.mark.parametrize("freeze", FREEZE)
@pytest.mark.parametrize("vision_tokens", ["pre_norm", "post_norm"])
def test_all_that_trains_has_a_gradient_and_nothing_else(
    freeze: tuple[str, ...], vision_tokens: str
) -> None:
    model = make_flamingo("gpt_neox", freeze=freeze, vision_tokens=vision_tokens).train()
    loss_of(model).backward()
    trained = set()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad:
            trained.add(part_of(name))
    assert trained == {"ours", "vision", "lm"} - set(freeze)


def test_of_the_tower_only_what_no_token_comes_from_stays(lm_family: str) -> None:
    model = make_flamingo(lm_family, freeze=())
    frozen = {name for name, one in model.named_parameters() if not one.requires_grad}
    tower = {"vision_encoder.proj", "vision_encoder.ln_post.weight", "vision_encoder.ln_post.bias"}
    assert frozen == tower


@pytest.mark.parametrize("freeze", FREEZE)
def test_a_frozen_part_stays_in_eval_mode(freeze: tuple[str, ...]) -> None:
    model = make_flamingo("opt", freeze=freeze).train()
    assert model.vision_encoder.training == ("vision" not in freeze)
    assert model.lang_encoder.training == ("lm" not in freeze)
    assert all(block.training for block in model.cross_attention_blocks)
    model.eval()
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("freeze", FREEZE)
def test_what_trained_is_kept_and_comes_back_whatever_trains_then(freeze: tuple[str, ...]) -> None:
    model = make_flamingo("opt", freeze=freeze)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    kept = trainable_state_dict(model)
    assert frozen_parts(kept) == freeze
    for other in FREEZE:
        fresh = make_flamingo("opt", freeze=other)
        load_trainable(fresh, kept)
        values = fresh.state_dict()
        assert all(torch.equal(values[name], value) for name, value in kept.items())


@pytest.mark.parametrize("family", ["opt", "gpt_neox"])
def test_openflamingos_form_has_what_trained(family: str) -> None:
    model = make_flamingo(family, freeze=())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    exported = export_openflamingo(model)
    fresh = make_flamingo(family)
    load_openflamingo(fresh, exported)
    values = fresh.state_dict()
    rows = set(model.media_tokens.token_ids)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        expected, found = parameter.detach(), values[name]
        if expected.shape[0] == values["media_tokens.input_rows"].shape[0] or is_ours(name):
            assert torch.equal(found, expected), name
            continue
        others = [row for row in range(len(expected)) if row not in rows or expected.dim() == 1]
        assert torch.equal(found[others], expected[others]), name
