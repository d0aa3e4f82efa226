"""The loss on held-out data: every sample once, the same for any batch size and number of ranks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flamingo.data.config import StreamConfig
from flamingo.data.stream import Stream
from flamingo.launch.run import train
from flamingo.models.flamingo.options import Train
from flamingo.train.validation_loss import Evaluation, Validation, evaluate
from mmdata.training_view.sequence import MediaTokenizer
from mmdata.training_view.tokenizer import load_tokenizer
from tests.flamingo.conftest import World

Options = Callable[..., Train]


class OneANat:
    """Stands in for a trainer: each target token of a batch costs its own id in thousandths."""

    done = 0

    class model:
        eval = train = staticmethod(lambda: None)

    def sum_loss(self, batch: Any) -> torch.Tensor:
        labels = batch.labels[:, 1:]
        return labels[labels != -100].double().sum() / 1000


def part(world: World, ranks: int, rank: int, batch_size: int) -> Evaluation:
    from mmdata.training_view.tokenizer import add_media_tokens

    tokenizer = load_tokenizer(str(world.lm), local_files_only=True, trust_remote_code=False)
    add_media_tokens(tokenizer)
    config = StreamConfig(
        name="v",
        shards=(str(world.shards),),
        batch_size=batch_size,
        image_size=32,
        min_image_bytes=0,
        max_tokens=64,
        decode_threads=0,
    )
    stream = Stream(config, MediaTokenizer(tokenizer), validation=True, rank=rank, world=ranks)
    return evaluate(OneANat(), stream)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "batch_size"), [(1, 7), (2, 4), (3, 5), (5, 1)])
def test_any_number_of_ranks_adds_up_to_the_same(ranks: int, batch_size: int, world: World) -> None:
    whole = part(world, 1, 0, 100)
    parts = [part(world, ranks, rank, batch_size) for rank in range(ranks)]
    total = sum(parts, Evaluation())
    assert (total.num_samples, total.num_targets) == (whole.num_samples, whole.num_targets)
    assert total.loss == pytest.approx(whole.loss, rel=1e-9)
    assert whole.num_samples > 20


@pytest.mark.slow
def test_it_is_measured_before_step_0_every_so_often_and_at_the_end(
    run_options: Options, world: World
) -> None:
    changes = {
        "val_stream": (f"held={world.shards}", f"pairs={world.captions}"),
        "stream_opt": ("held.max_tokens=64", "held.batch_size=5"),
        "val_every": 2,
    }
    result = train(run_options("run", max_steps=3, **changes))
    path = Path(result.folder) / "validation.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 3]
    assert all(line["samples"]["pairs"] == 12 for line in lines)
    assert lines[-1]["losses"]["held"] < lines[0]["losses"]["held"]
    assert result.validation == lines[-1]["losses"]
    plain = train(run_options("plain", max_steps=3))
    assert plain.losses == result.losses  # measuring changes nothing
    train(run_options("run", max_steps=4, **changes))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 3, 4]


def test_when_it_is_due(tmp_path: Path) -> None:
    validation = Validation(str(tmp_path), [object()], every=3, done=0)  # type: ignore[list-item]
    due = [step for step in range(9) if validation.is_due(step, is_last=step == 8)]
    assert due == [0, 3, 6, 8]
    nothing = Validation(str(tmp_path), [], every=3, done=0)
    assert not nothing.is_due(3, is_last=True)
