"""Memory by category at four moments of a step, as a run writes it down."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flamingo.launch.run import train
from flamingo.memory.phases import CATEGORIES, MemoryLog, held_bytes
from flamingo.models.flamingo.options import Train
from flamingo.telemetry.names import MEMORY_NAME
from tests.flamingo.memory.trainers import make_trainer

PHASES = ["before forward", "after forward", "after backward", "after optimizer"]


@pytest.mark.slow
def test_a_run_writes_its_first_two_steps_and_every_nth(
    run_options: Callable[..., Train],
) -> None:
    options = run_options(max_steps=4, memory_every=3, batch_size_mmc4=2)
    result = train(options)
    lines = (Path(options.run_name) / MEMORY_NAME).read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [(one["step"], one["phase"]) for one in records] == [
        (step, phase) for step in (0, 1, 3) for phase in PHASES
    ]
    first, forward, backward, optimizer = (one["categories"] for one in records[4:8])
    assert list(first) == list(CATEGORIES)
    assert len({one["parameters"] for one in (first, forward, backward, optimizer)}) == 1
    assert (first["gradients"], forward["gradients"]) == (0, 0)
    assert backward["gradients"] == optimizer["gradients"] > 0
    assert first["optimizer"] == optimizer["optimizer"] > 2 * backward["gradients"]
    assert forward["activations"] > 10 * backward["activations"]
    assert records[2]["categories"]["optimizer"] == 0  # made by the first step
    for one in records:
        assert one["of"] == "process"
        assert one["peak"] >= one["allocated"] >= sum(one["categories"].values()) * 0.9
    assert "step 4" in result.memory
    assert all(phase in result.memory for phase in PHASES)


class TestWhatIsHeld:
    def test_memory_that_tensors_share_counts_once(self) -> None:
        whole = torch.zeros(10, 10)
        assert sum(size for _, size in held_bytes([whole, whole[2:], whole.t()]).values()) == 400

    def test_what_is_no_tensor_is_nothing(self) -> None:
        assert held_bytes([None, 3, "step"]) == {}


def test_a_log_that_is_not_due_counts_no_operation(run_options: Callable[..., Train]) -> None:
    trainer = make_trainer(run_options())
    memory = MemoryLog(None, trainer, every=None)
    trainer.done = 2
    with memory.step():
        trainer.watch("before forward")
    assert memory.phase == "before forward"
    assert memory.moments == {}
    assert memory.table() == ""


def test_only_the_largest_of_several_passes_is_kept(run_options: Callable[..., Train]) -> None:
    trainer = make_trainer(run_options())
    memory = MemoryLog(None, trainer, every=None)
    with memory.step():
        large = torch.zeros(1_000_000)
        trainer.watch("after forward")
        del large
        small = torch.zeros(10)
        trainer.watch("after forward")
    assert small.numel() == 10
    assert memory.moments["after forward"].categories["activations"] >= 4_000_000
