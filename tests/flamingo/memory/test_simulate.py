"""Passes without values against passes with them: what is kept, and what is alive at most."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from flamingo.data.batch import Batch
from flamingo.memory.largest_batch import shapes_of
from flamingo.memory.live import GRADIENTS, LiveMemory, labelled
from flamingo.memory.plan import Layout
from flamingo.memory.simulate import Pass, Simulation
from flamingo.models.family import Shape
from flamingo.models.flamingo.options import Train
from flamingo.train.build import build_empty
from flamingo.train.loop import Trainer
from tests.flamingo.memory.trainers import make_trainer

CASES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16-mixed"},
    "captions": {"mmc4_rule": "caption", "mmc4_max_tokens": 16},
    "small chunks": {"vision_chunk": 2, "cross_attn_every_n_layers": 2},
    "packed": {"pack": True, "pack_tokens": 128},
    "features": {"mmc4_features": "features"},
    "all bf16": {"precision": "bf16"},
    "all trains": {"freeze": "none"},
}
#: Those of `make test`: among them they cast, pack, train all and have no tower.
QUICK = ("bf16", "packed", "features", "all trains")
CHECKPOINTED = {"gradient_checkpointing": True}


def simulated(options: Train) -> Pass:
    simulation = Simulation(build_empty(options), options, torch.device("cpu"))
    (shape,) = shapes_of(options, Layout())
    return simulation.run(shape)


def real(options: Train) -> tuple[Trainer, Batch, Shape]:
    trainer = make_trainer(options)
    (shape,) = shapes_of(options, Layout())
    return trainer, trainer.model.largest_batch(shape), shape


def saved_bytes(trainer: Trainer, batch: Batch) -> int:
    """Bytes that autograd saves in a real forward pass, without parameters, each memory once."""
    model = trainer.model
    known = {one.untyped_storage().data_ptr() for one in (*model.parameters(), *model.buffers())}
    saved: dict[int, int] = {}

    def keep(one: Tensor) -> Tensor:
        storage = one.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        loss = trainer.sum_loss(batch)
    assert loss.requires_grad  # keeps the graph, and with it all addresses, alive until here
    return sum(saved.values())


@pytest.mark.parametrize(
    "case",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.matrix) for name in CASES],
)
def test_what_is_kept_is_within_a_tenth_of_what_autograd_saves(
    run_options: Callable[..., Train], case: str
) -> None:
    options = run_options(**CASES[case])
    found = simulated(options)
    trainer, batch, shape = real(options)
    assert found.shapes == (shape,)
    assert sum(found.kept.values()) == pytest.approx(saved_bytes(trainer, batch), rel=0.1)


@pytest.mark.parametrize(
    "changes",
    [{}, CHECKPOINTED, CHECKPOINTED | {"checkpoint_policy": "selective"}],
    ids=["kept", "checkpointed", "selective"],
)
def test_a_real_pass_takes_what_one_without_values_takes(
    run_options: Callable[..., Train], changes: dict[str, Any]
) -> None:
    options = run_options(**changes)
    found = simulated(options)
    trainer, batch, _ = real(options)
    live = LiveMemory()
    with labelled(live, trainer.model):
        live.ignore([*trainer.model.parameters(), *trainer.model.buffers()])
        with live:
            loss = trainer.sum_loss(batch)
            kept = live.now.total()
            loss.backward()
    assert sum(found.kept.values()) == pytest.approx(kept, rel=0.1)
    assert sum(found.peak.values()) == pytest.approx(live.peak.total(), rel=0.1)
    assert live.now[GRADIENTS] == sum(
        one.numel() * 4 for one in trainer.model.parameters() if one.requires_grad
    )


def test_checkpointing_keeps_less_and_the_peak_falls(run_options: Callable[..., Train]) -> None:
    whole, less = simulated(run_options()), simulated(run_options(**CHECKPOINTED))
    assert sum(less.kept.values()) < sum(whole.kept.values()) / 2
    assert sum(less.peak.values()) < sum(whole.peak.values())


def test_what_is_kept_stands_under_the_part_that_keeps_it(
    run_options: Callable[..., Train],
) -> None:
    small, large = (simulated(run_options(mmc4_max_num_images=n)) for n in (1, 6))
    assert set(small.kept) <= {
        "vision tower",
        "resampler",
        "cross-attention",
        "decoder blocks",
        "embeddings and masks",
        "logits and loss",
        "batch",
    }
    assert large.kept["resampler"] == pytest.approx(6 * small.kept["resampler"], rel=0.02)
    assert large.kept["decoder blocks"] == small.kept["decoder blocks"]


def test_a_shape_is_run_again_with_the_same_result(run_options: Callable[..., Train]) -> None:
    options = run_options()
    simulation = Simulation(build_empty(options), options, torch.device("cpu"))
    (shape,) = shapes_of(options, Layout())
    assert simulation.run(shape) == simulation.run(shape)
