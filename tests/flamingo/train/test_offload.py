"""An optimizer in host memory steps as one on the device, and goes on from a checkpoint."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from flamingo.train.offload import OffloadedOptimizer
from flamingo.train.optim import set_learning_rate

MAKERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.1),
    "fused": lambda groups: torch.optim.AdamW(groups, lr=0.1, fused=True),
    "momentum": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
}


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [
        nn.Parameter(torch.randn(5, 3)),
        nn.Parameter(torch.randn(7)),
        nn.Parameter(torch.ones(2)),
    ]


def groups(given: list[nn.Parameter]) -> list[dict[str, Any]]:
    return [
        {"params": given[:1], "weight_decay": 0.1},
        {"params": given[1:], "weight_decay": 0.0},
    ]


def set_gradients(given: list[nn.Parameter], step: int) -> None:
    """Of all but the last, which never has one."""
    for number, parameter in enumerate(given[:-1]):
        generator = torch.Generator().manual_seed(10 * step + number)
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def take_steps(optimizer: torch.optim.Optimizer, given: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        set_learning_rate(optimizer, 0.1 / (1 + step))
        set_gradients(given, step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("kind", MAKERS)
def test_it_steps_as_the_optimizer_inside_would(kind: str) -> None:
    plain, moved = parameters(), parameters()
    take_steps(MAKERS[kind](groups(plain)), plain, range(4))
    in_parts = OffloadedOptimizer(groups(moved), MAKERS[kind], part_bytes=70)
    assert [len(part.parameters) for part in in_parts._parts] == [2, 1]
    take_steps(in_parts, moved, range(4))
    for one, other in zip(plain, moved, strict=True):
        assert torch.equal(one, other)


def test_gradients_that_were_fetched_and_let_go_are_not_stepped_by() -> None:
    given = parameters()
    optimizer = OffloadedOptimizer(groups(given), MAKERS["fused"])
    set_gradients(given, 0)
    optimizer.fetch()
    optimizer.zero_grad(set_to_none=True)
    before = [one.detach().clone() for one in given]
    optimizer.step()
    assert all(torch.equal(one, old) for one, old in zip(given, before, strict=True))


@pytest.mark.parametrize("kind", MAKERS)
def test_state_that_is_loaded_into_it_is_the_inner_ones(kind: str) -> None:
    whole = parameters()
    optimizer = OffloadedOptimizer(groups(whole), MAKERS[kind])
    take_steps(optimizer, whole, range(2))
    saved = [
        {name: value.clone() for name, value in optimizer.state[one].items()} for one in whole[:-1]
    ]
    resumed = parameters()
    fresh = OffloadedOptimizer(groups(resumed), MAKERS[kind])
    with torch.no_grad():
        for here, there in zip(resumed, whole, strict=True):
            here.copy_(there)
    for parameter, state in zip(resumed, saved, strict=False):
        fresh.state[parameter].update(state)
    fresh.settle()
    take_steps(optimizer, whole, range(2, 4))
    take_steps(fresh, resumed, range(2, 4))
    for one, other in zip(whole, resumed, strict=True):
        assert torch.equal(one, other)


def test_its_state_is_on_the_host_and_its_groups_hold_the_models_parameters() -> None:
    given = parameters()
    optimizer = OffloadedOptimizer(groups(given), MAKERS["adamw"])
    take_steps(optimizer, given, range(1))
    held = [one for group in optimizer.param_groups for one in group["params"]]
    assert all(one is other for one, other in zip(held, given, strict=True))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    state = optimizer.state[given[0]]
    assert set(state) == {"step", "exp_avg", "exp_avg_sq"}
    assert {value.device.type for value in state.values()} == {"cpu"}
