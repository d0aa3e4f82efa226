"""A run that begins with its largest step and a run without: the same, bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flamingo.launch.run import train
from flamingo.memory import out_of_memory as short
from flamingo.memory.largest_batch import shapes_of
from flamingo.memory.out_of_memory import MemoryShortError, watched_preflight, watched_step
from flamingo.memory.phases import MemoryLog
from flamingo.memory.plan import Layout
from flamingo.memory.preflight import is_wanted, preflight
from flamingo.models.flamingo.options import Train
from flamingo.modules.checkpoint_files import read_weights
from flamingo.train import loop
from flamingo.train.loop import Trainer
from flamingo.train.step_counts import StepCounts
from tests.flamingo.memory.trainers import make_trainer
from tests.flamingo.train.eager import without_compiler

RULES = {"mmc4": "interleaved"}


def weights_of(folder: str) -> dict[str, torch.Tensor]:
    return dict(read_weights(Path(folder) / "checkpoints" / "step-00000002"))


@pytest.mark.slow
def test_a_run_with_a_preflight_trains_the_same_weights_to_the_bit(
    run_options: Callable[..., Train],
) -> None:
    plain = train(run_options("plain", preflight="off", random_flip=True, max_steps=2))
    tried = train(run_options("tried", preflight="on", random_flip=True, max_steps=2))
    assert (tried.losses, tried.drops) == (plain.losses, plain.drops)
    first, second = weights_of(plain.folder), weights_of(tried.folder)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_takes_a_whole_step_and_leaves_nothing(run_options: Callable[..., Train]) -> None:
    options = run_options(gradient_accumulation_steps=3)
    trainer = make_trainer(options)
    values = {name: one.clone() for name, one in trainer.model.state_dict().items()}
    random = torch.get_rng_state()
    passed: list[str] = []
    moved: list[bool] = []

    def watch(phase: str) -> None:
        passed.append(phase)
        if phase == "after optimizer":
            rows = trainer.model.media_tokens.input_rows
            moved.append(not torch.equal(rows, values["media_tokens.input_rows"]))

    trainer.watch = watch
    preflight(trainer, shapes_of(options, Layout()))
    # Two micro-batches of the three: by the second one gradients are there.
    forward = ["after forward"] * 2
    assert passed == ["before forward", *forward, "after backward", "after optimizer"]
    assert moved == [True]
    assert not trainer.optimizer.state
    assert all(one.grad is None for one in trainer.model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    for name, one in trainer.model.state_dict().items():
        assert torch.equal(one, values[name]), name


@pytest.mark.parametrize(
    "changes",
    [
        {"cpu_offload": "optimizer"},
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "adamw8bit"},
        {"freeze": "vision", "precision": "bf16-mixed"},
    ],
    ids=["offload", "sgd", "adamw8bit", "lm"],
)
def test_the_step_after_it_is_the_one_without_it(
    run_options: Callable[..., Train], changes: dict[str, Any]
) -> None:
    options = run_options(batch_size_mmc4=2, mmc4_max_num_images=2, **changes)
    shapes = shapes_of(options, Layout())
    stepped = []
    for is_tried in (False, True):
        trainer = make_trainer(options)
        if is_tried:
            with without_compiler():
                preflight(trainer, shapes)
        batches = [trainer.model.largest_batch(shapes[0])]
        counts = StepCounts.of({"mmc4": batches}, 0.0)
        for _ in range(2):
            trainer.backward({"mmc4": list(batches)}, counts)
            with without_compiler():
                trainer.optimizer.step()
            trainer.optimizer.zero_grad()
        stepped.append(trainer.model.state_dict())
    plain, tried = stepped
    fresh = make_trainer(options).model.state_dict()
    assert not all(torch.equal(fresh[name], plain[name]) for name in plain)
    for name, one in plain.items():
        assert torch.equal(one, tried[name]), name


def test_its_batch_is_the_largest_there_can_be(run_options: Callable[..., Train]) -> None:
    options = run_options(mmc4_max_num_images=5, mmc4_max_tokens=48, batch_size_mmc4=3)
    trainer = make_trainer(options)
    seen: dict[str, Any] = {}
    trainer.model.register_forward_pre_hook(
        lambda _m, _a, given: seen.update(given), with_kwargs=True
    )
    preflight(trainer, shapes_of(options, Layout()))
    assert seen["input_ids"].shape == (3, 48)
    assert seen["images"].shape == (15, 3, 64, 64)
    assert seen["images_per_sample"] == [5, 5, 5]


def test_a_run_that_went_on_is_refused(run_options: Callable[..., Train]) -> None:
    trainer = make_trainer(run_options())
    trainer.optimizer.state[nn.Parameter(torch.zeros(1))] = {"step": 1}
    with pytest.raises(ValueError, match="without state"):
        preflight(trainer, [])


@pytest.mark.parametrize(
    ("given", "auto", "device", "expected"),
    [
        ("auto", False, "cpu", False),
        ("auto", False, "cuda", True),
        ("auto", True, "cpu", True),
        ("on", False, "cpu", True),
        ("off", False, "cuda", False),
    ],
)
def test_is_wanted_on_a_gpu_or_where_asked_for(
    run_options: Callable[..., Train], given: Any, auto: bool, device: str, expected: bool
) -> None:
    options = run_options(preflight=given, auto_batch_size=auto)
    assert is_wanted(options, torch.device(device)) is expected


class TestOutOfMemory:
    """torch's error raised where a GPU's allocator would raise it."""

    def raise_in(self, module: nn.Module) -> None:
        def fail(*_: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        module.register_forward_hook(fail)

    def test_in_a_preflight_nothing_was_trained(self, run_options: Callable[..., Train]) -> None:
        trainer = make_trainer(run_options(preflight="on"))
        memory = MemoryLog(None, trainer, every=None)
        self.raise_in(trainer.model.decoder_blocks[2])
        with pytest.raises(MemoryShortError) as caught:
            watched_preflight(trainer, memory, RULES)
        text = str(caught.value)
        assert caught.value.exit_code == 2
        assert "in the preflight (mmc4: 4 x 64 tokens, 24 images): activations grew" in text
        assert text.endswith(
            "cheapest changes: halve --batch-size-mmc4 and --batch-size-laion and double "
            "--gradient-accumulation-steps (the same training); --precision bf16-mixed"
        )

    def test_in_the_optimizers_step_it_is_the_optimizer_that_grew(
        self, run_options: Callable[..., Train], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainer = make_trainer(run_options(preflight="on"))
        memory = MemoryLog(None, trainer, every=None)

        def fail(*_: object, **__: object) -> None:
            raise torch.OutOfMemoryError

        monkeypatch.setattr(trainer.optimizer, "step", fail)
        with pytest.raises(MemoryShortError, match=r"optimizer grew by 0\.00 GB"):
            watched_preflight(trainer, memory, RULES)

    def test_in_a_step_of_the_run_the_step_is_named(
        self, run_options: Callable[..., Train], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainer = make_trainer(run_options())
        trainer.done = 2

        def fail(_trainer: Trainer) -> None:
            raise torch.OutOfMemoryError

        monkeypatch.setattr(loop.Trainer, "step", fail)
        with pytest.raises(MemoryShortError, match="out of memory on cpu in step 3: ") as caught:
            watched_step(trainer, MemoryLog(None, trainer, every=None))
        assert caught.value.exit_code == 1

    def test_a_batch_size_that_was_chosen_is_told_first(
        self, run_options: Callable[..., Train]
    ) -> None:
        options = run_options(auto_batch_size=True, memory_budget=1.0)
        trainer = make_trainer(options)
        self.raise_in(trainer.model.perceiver)
        memory = MemoryLog(None, trainer, every=None)
        with pytest.raises(MemoryShortError, match="cheapest changes: a lower --memory-budget; "):
            watched_preflight(trainer, memory, RULES)

    def test_other_errors_stay_what_they_are(self, run_options: Callable[..., Train]) -> None:
        memory = MemoryLog(None, make_trainer(run_options()), every=None)
        with pytest.raises(RuntimeError, match="a bug"), short.told_when_short(memory, during=""):
            raise RuntimeError("a bug")
