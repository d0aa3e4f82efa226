"""All streams in one pass: the losses, gradients and weights of passes of their own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from flamingo.launch.run import train
from flamingo.memory.largest_batch import merges_streams
from flamingo.models.family import Shape
from flamingo.models.flamingo.options import Train
from flamingo.modules.checkpoint_files import read_weights
from flamingo.telemetry.jsonl import read_log
from flamingo.telemetry.names import METRICS_NAME
from flamingo.train.loop import Trainer
from mmdata.errors import UserError
from tests.flamingo.conftest import World

pytestmark = pytest.mark.slow

Levers = dict[str, Any]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Streams of each pass that is taken."""
    found: list[int] = []
    real = Trainer.pass_loss

    def counted(self: Trainer, through: torch.nn.Module, batch: Any) -> Tensor:
        found.append(len(batch.stream_sizes or (1,)))
        return real(self, through, batch)

    monkeypatch.setattr(Trainer, "pass_loss", counted)
    return found


@pytest.mark.parametrize(
    "levers",
    [
        {"gradient_accumulation_steps": 2, "random_flip": True},
        pytest.param(
            {"pack": True, "pack_tokens": 96, "batch_size_mmc4": 2, "batch_size_laion": 1},
            marks=pytest.mark.matrix,
        ),
        # Three documents and one pair: what a stream gives fills fewer micro-batches.
        pytest.param(
            {"mix": "mmc4=0.75,laion=0.25", "batch_size": 2, "gradient_accumulation_steps": 2},
            marks=pytest.mark.matrix,
        ),
    ],
)
def test_losses_and_weights_are_those_of_passes_of_their_own(
    levers: Levers,
    run_options: Callable[..., Train],
    world: World,
    passes: list[int],
) -> None:
    common = {
        "laion_shards": str(world.captions),
        "loss_multiplier_laion": 0.2,
        "max_steps": 2,
        "workers": 0,
        "mmc4_max_tokens": 48,
        "optimizer": "sgd",
        "learning_rate": 0.1,
    }
    results = []
    for name in ("off", "on"):
        passes.clear()
        options = run_options(name, merge_streams=name, **common | levers)
        weights = read_weights(str(train(options).checkpoint))
        lines = read_log(f"{options.run_name}/{METRICS_NAME}")
        results.append((lines, weights, list(passes)))
    (apart, weights, several), (together, merged, fewer) = results
    assert max(several) == 1
    assert max(fewer) == 2
    assert sum(fewer) == len(several)
    for one, other in zip(apart, together, strict=True):
        assert other["losses"] == pytest.approx(one["losses"], rel=1e-5)
        assert other["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-5)
        assert other["streams"] == one["streams"]
    assert weights.keys() == merged.keys()
    for name, value in weights.items():
        torch.testing.assert_close(merged[name], value, rtol=1e-5, atol=1e-6, msg=name)


def shapes(**second: Any) -> list[Shape]:
    first = Shape(name="mmc4", sequences=8, tokens=256, images=6)
    given: dict[str, Any] = {"name": "laion", "sequences": 8, "tokens": 256, "images": 1}
    return [first, Shape(**given | second)]


@pytest.mark.parametrize(
    ("asked", "on_gpu", "second", "expected"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),  # the sums of a CPU stay
        ("auto", True, {"tokens": 32}, False),  # captions would be padded to documents
        ("on", False, {"tokens": 32}, True),
        ("off", True, {}, False),
        ("auto", True, {"is_features": True}, False),
    ],
)
def test_by_itself_it_is_so_on_a_gpu_where_that_pads_little(
    asked: Any, on_gpu: bool, second: Levers, expected: bool
) -> None:
    options = Train(mmc4_shards="a", lm_path="a", run_name="a", merge_streams=asked)
    assert merges_streams(options, shapes(**second), on_gpu=on_gpu) == expected
    assert not merges_streams(options, shapes()[:1], on_gpu=True)


def test_pictures_and_features_cannot_be_merged() -> None:
    options = Train(mmc4_shards="a", lm_path="a", run_name="a", merge_streams="on")
    with pytest.raises(UserError, match="--merge-streams on: some streams bring pictures"):
        merges_streams(options, shapes(is_features=True), on_gpu=True)
