"""Groups, clipping under a loss scale, and state that goes through a checkpoint."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torchao.optim.subclass_8bit import OptimState8bit

from flamingo.launch.run import train
from flamingo.models.flamingo.options import Train
from flamingo.modules.checkpoint_files import read_weights
from flamingo.train.offload import OffloadedOptimizer
from flamingo.train.optim import (
    clip_gradients,
    make_optimizer,
    plain_state,
    queue_step,
    set_learning_rate,
    settle,
)
from tests.flamingo.models.flamingo.tiny_lms import make_flamingo

from .eager import without_compiler

Options = Callable[..., Train]


def names_of(model: nn.Module, group: dict[str, Any]) -> set[str]:
    held = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in held}


def test_only_cross_attention_decays_while_all_else_is_frozen(run_options: Options) -> None:
    model = make_flamingo("opt")
    decaying, plain = make_optimizer(model, run_options(weight_decay=0.3)).param_groups
    assert (decaying["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert all("gated_cross_attn" in name for name in names_of(model, decaying))
    assert {name.split(".")[0] for name in names_of(model, plain)} == {"perceiver", "media_tokens"}


def test_of_an_lm_and_a_tower_that_train_matrices_decay_but_embeddings_do_not(
    run_options: Options,
) -> None:
    model = make_flamingo("opt", freeze=())
    decaying, plain = make_optimizer(model, run_options(freeze="none")).param_groups
    layers = "lang_encoder.model.decoder.layers.0.decoder_layer."
    decays, stays = names_of(model, decaying), names_of(model, plain)
    assert {f"{layers}fc1.weight", "vision_encoder.conv1.weight"} <= decays
    assert {f"{layers}fc1.bias", f"{layers}final_layer_norm.weight"} <= stays
    assert "lang_encoder.model.decoder.embed_tokens.weight" in stays
    assert "vision_encoder.positional_embedding" in stays
    assert decays | stays == {n for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, torch.optim.AdamW),
        ({"optimizer": "sgd"}, torch.optim.SGD),
        ({"cpu_offload": "optimizer"}, OffloadedOptimizer),
    ],
)
def test_the_optimizer_is_the_one_asked_for(
    run_options: Options, changes: dict[str, Any], kind: type
) -> None:
    optimizer = make_optimizer(make_flamingo("opt"), run_options(**changes))
    assert type(optimizer) is kind
    set_learning_rate(optimizer, 0.25)
    assert [float(group["lr"]) for group in optimizer.param_groups] == [0.25, 0.25]


@pytest.mark.parametrize("clip_norm", [0.0, 0.5, 100.0])
def test_a_loss_scale_leaves_norm_and_gradients_as_they_are(clip_norm: float) -> None:
    found = []
    for scale in (1.0, 1024.0):
        parameters = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))]
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 2.0 * scale)
        norm = clip_gradients(parameters, clip_norm, scale)
        found.append((norm, *(one.grad for one in parameters)))
    for one, other in zip(*found, strict=True):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one, other, rtol=1e-6, atol=0)


def test_an_overflow_is_told_by_the_norm() -> None:
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.tensor([1.0, float("inf"), 0.0])
    assert not clip_gradients([parameter], 1.0, 1024.0).isfinite()


def small_parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.randn(7))]


def test_a_fused_step_that_was_queued_is_left_out_where_a_number_is_not_finite() -> None:
    """And else is the step that the host would have taken, the first one left out included."""
    queued, told = small_parameters(), small_parameters()
    by_itself = torch.optim.AdamW(queued, lr=0.1, fused=True)
    by_the_host = torch.optim.AdamW(told, lr=0.1, fused=True)
    for step, loss in enumerate((math.nan, 1.0, math.inf, 2.0, 3.0)):
        for one, other in zip(queued, told, strict=True):
            generator = torch.Generator().manual_seed(step)
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        assert queue_step(by_itself, torch.tensor([0.5, loss], dtype=torch.float64))
        if math.isfinite(loss):
            by_the_host.step()
        for one, other in zip(queued, told, strict=True):
            assert torch.equal(one, other)
    assert not hasattr(by_itself, "found_inf")
    assert [int(one["step"]) for one in by_itself.state.values()] == [3, 3]


@pytest.mark.parametrize(
    "make",
    [
        lambda given: torch.optim.AdamW(given, lr=0.1),
        lambda given: torch.optim.SGD(given, lr=0.1, momentum=0.9, fused=True),
        lambda given: OffloadedOptimizer(
            [{"params": given}], lambda groups: torch.optim.AdamW(groups, lr=0.1, fused=True)
        ),
    ],
)
def test_other_optimizers_step_when_the_host_knows(make: Callable[[Any], Any]) -> None:
    given = small_parameters()
    before = [one.detach().clone() for one in given]
    for one in given:
        one.grad = torch.ones_like(one)
    assert not queue_step(make(given), torch.zeros(2))
    assert all(torch.equal(one, old) for one, old in zip(given, before, strict=True))


def test_eight_bit_moments_go_through_plain_numbers_and_are_eight_bit_again(
    run_options: Options,
) -> None:
    model = make_flamingo("opt")
    optimizer = make_optimizer(model, run_options(optimizer="adamw8bit"))
    for number, group in enumerate(optimizer.param_groups):
        for parameter in group["params"]:
            generator = torch.Generator().manual_seed(number)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    with without_compiler():
        optimizer.step()
    weight = model.perceiver.layers[0][1][1].weight  # type: ignore[index,union-attr]
    state = optimizer.state[weight]
    before = {name: plain_state(state[name]) for name in ("exp_avg", "exp_avg_sq")}
    assert type(state["exp_avg"]) is OptimState8bit
    assert {type(value) for value in before.values()} == {torch.Tensor}
    for name, value in before.items():
        state[name] = value.clone()
    settle(optimizer)
    for name, value in before.items():
        assert type(state[name]) is OptimState8bit
        again = plain_state(state[name])
        assert (again - value).abs().max() < 0.01 * value.abs().max()
    small = optimizer.state[model.perceiver.norm.weight]
    assert type(small["exp_avg"]) is torch.Tensor  # under 4,096 values


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"cpu_offload": "optimizer"},
        pytest.param({"precision": "bf16", "freeze": "none"}, marks=pytest.mark.matrix),
        pytest.param({"optimizer": "sgd", "momentum": 0.9}, marks=pytest.mark.matrix),
        pytest.param({"precision": "fp16-mixed"}, marks=pytest.mark.matrix),
    ],
)
def test_n_steps_and_n_more_equal_2n(run_options: Options, changes: dict[str, Any]) -> None:
    changes = {"batch_size_mmc4": 2, "mmc4_max_tokens": 32, "workers": 0} | changes
    with without_compiler():
        whole = train(run_options("whole", max_steps=4, **changes))
        train(run_options("halves", max_steps=2, **changes))
        halves = train(run_options("halves", max_steps=4, **changes))
    assert halves.resumed_from == 2
    expected, found = (read_weights(str(one.checkpoint)) for one in (whole, halves))
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
