"""The next step is drawn before a step's losses are read, and nothing else is any different."""

import dataclasses
import math
from collections.abc import Callable, Generator

import pytest
import torch
from torch import Tensor, nn

from flamingo.data.batch import Batch, blank_batch
from flamingo.data.damage import DamageCount
from flamingo.data.order import LanePosition, Position
from flamingo.models.family import TrainableModel
from flamingo.models.flamingo.options import Train
from flamingo.parallel.wrap import Wrapped
from flamingo.train import loop
from flamingo.train.loaders import StreamLoader
from mmdata.errors import BadInputError, UserError

TOTAL = 4


class NotedModel(TrainableModel):
    """One weight; notes when a pass is queued."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self._events = events

    def loss(self, batch: Batch, device: torch.device, through: nn.Module | None = None) -> Tensor:
        self._events.append(f"queue {batch.keys[0]}")
        return self.weight.sum()


def at(step: int) -> Position:
    """Where the stream stands after a step."""
    return Position((LanePosition(0, step),))


def noted_steps(events: list[str], *, broken: int) -> Generator[list[Batch], None, None]:
    """One batch a step, until the step that cannot be drawn."""
    for step in range(1, 100):
        events.append(f"draw {step}")
        if step == broken:
            raise UserError(f"step {step} cannot be drawn")
        batch = dataclasses.replace(blank_batch(), num_targets=1, keys=(str(step),))
        yield [dataclasses.replace(batch, position=at(step))]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens; reads are noted in it."""
    found: list[str] = []
    read = loop.read

    def noted_read(values: Tensor) -> list[float]:
        found.append("read")
        return read(values)

    monkeypatch.setattr(loop, "read", noted_read)
    return found


def make_trainer(
    events: list[str],
    *,
    broken: int = 99,
    damage: Callable[[], DamageCount] = lambda: DamageCount("web", 1.0),
) -> loop.Trainer:
    model = NotedModel(events)
    return loop.Trainer(
        wrapped=Wrapped(model, model),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        loaders=[StreamLoader("web", noted_steps(events, broken=broken), 1.0, at(0), damage)],
        options=Train(mmc4_shards="none", lm_path="none", run_name="none"),
        total_steps=TOTAL,
    )


def test_the_next_step_is_drawn_between_the_last_backward_and_the_read(
    events: list[str],
) -> None:
    trainer = make_trainer(events)
    for step in range(1, TOTAL + 1):
        trainer.step()
        assert trainer.loaders[0].position == at(step)
    assert " ".join(events) == (
        "draw 1 queue 1 draw 2 read queue 2 draw 3 read queue 3 draw 4 read queue 4 read"
    )


def test_a_step_that_cannot_be_drawn_leaves_the_one_before_it_whole(
    events: list[str],
) -> None:
    trainer = make_trainer(events, broken=3)
    assert [trainer.step().step for _ in range(2)] == [1, 2]
    assert events[-2:] == ["draw 3", "read"]
    with pytest.raises(UserError, match="step 3 cannot be drawn"):
        trainer.step()
    assert trainer.done == 2
    assert trainer.loaders[0].position == at(2)
    assert events[-1] == "read"


def test_damage_stops_the_step_whose_draw_came_upon_it(
    events: list[str],
) -> None:
    def damage() -> DamageCount:
        is_found = events[-1] == "draw 3"
        return DamageCount("web", 0.5, num_read=5000, num_bad=3000 if is_found else 0)

    trainer = make_trainer(events, damage=damage)
    trainer.step()
    assert trainer.step().step == 2
    with pytest.raises(BadInputError, match="3000 of 5000 samples are damaged"):
        trainer.step()


@pytest.mark.parametrize("fused", [False, True])
def test_steps_are_skipped_and_counted_alike_whoever_leaves_them_out(
    events: list[str], fused: bool
) -> None:
    trainer = make_trainer(events)
    weight = trainer.model.get_parameter("weight")
    trainer.optimizer = torch.optim.AdamW([weight], lr=0.5, weight_decay=0.0, fused=fused)
    weight.register_hook(lambda gradient: gradient * (math.nan if trainer.done in (1, 2) else 1))
    seen = [weight.item()]
    reports = []
    for _ in range(2):
        reports.append(trainer.step())
        seen.append(weight.item())
    trainer.options = dataclasses.replace(trainer.options, max_skipped_steps=2)
    with pytest.raises(loop.NotFiniteError, match="step 3: 2 steps in a row were not finite"):
        trainer.step()
    seen.append(weight.item())
    assert [one.skipped for one in reports] == [False, True]
    assert (trainer.done, trainer.skipped_steps) == (3, 2)
    assert seen[0] != seen[1]
    assert seen[1] == seen[2] == seen[3]
    assert weight.grad is None
