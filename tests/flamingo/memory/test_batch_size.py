"""The largest micro-batch under a budget, with the samples of a step as they were."""

from collections.abc import Callable
from typing import Any

import pytest

from flamingo.launch.run import train
from flamingo.memory.batch_size import layout_of_world, micro_batches_of, with_largest_batch
from flamingo.memory.estimate import GB, Estimator, estimate
from flamingo.memory.plan import Layout
from flamingo.models.flamingo.options import Train
from flamingo.options.streams import training_streams
from flamingo.parallel.world import World
from mmdata.errors import UserError


def sizes_of(options: Train) -> tuple[int, dict[str, int]]:
    streams = {one.name: one.config.batch_size for one in training_streams(options)}
    return options.gradient_accumulation_steps, streams


def test_every_size_that_divides_the_step_is_tried_the_largest_first(
    run_options: Callable[..., Train],
) -> None:
    options = run_options(
        batch_size_mmc4=4, laion_shards="x", batch_size_laion=8, gradient_accumulation_steps=3
    )
    tried = [sizes_of(one) for one in micro_batches_of(options)]
    assert tried == [
        (1, {"mmc4": 12, "laion": 24}),
        (2, {"mmc4": 6, "laion": 12}),
        (3, {"mmc4": 4, "laion": 8}),
        (4, {"mmc4": 3, "laion": 6}),
        (6, {"mmc4": 2, "laion": 4}),
        (12, {"mmc4": 1, "laion": 2}),
    ]


def test_a_mixture_is_cut_as_one(run_options: Callable[..., Train]) -> None:
    options = run_options(laion_shards="x", mix="mmc4=1,laion=1", batch_size=6)
    tried = [(one.gradient_accumulation_steps, one.batch_size) for one in micro_batches_of(options)]
    assert tried == [(1, 6), (2, 3), (3, 2), (6, 1)]


def test_takes_the_largest_that_the_estimate_allows(
    run_options: Callable[..., Train],
) -> None:
    options = run_options(batch_size_mmc4=4)
    estimator = Estimator(options)
    takes = {
        sizes_of(one)[0]: estimator.estimate(one).total / GB for one in micro_batches_of(options)
    }
    assert takes[1] > takes[2] > takes[4]
    for wanted in (1, 2):
        budget = takes[wanted] * 1.0001
        asked = run_options(batch_size_mmc4=4, auto_batch_size=True, memory_budget=budget)
        found = with_largest_batch(asked, World())
        assert sizes_of(found) == (wanted, {"mmc4": 4 // wanted})


def test_what_cannot_fit_is_told(run_options: Callable[..., Train]) -> None:
    options = run_options(memory_budget=0.001)
    with pytest.raises(UserError, match=r"smallest micro-batch takes 0\.\d+ GB of the 0.00 that"):
        with_largest_batch(options, World())


def test_without_a_gpu_the_budget_has_to_be_said(run_options: Callable[..., Train]) -> None:
    with pytest.raises(UserError, match="expected --memory-budget GB"):
        with_largest_batch(run_options(), World())


@pytest.mark.parametrize(("parallel", "size"), [("none", 1), ("ddp", 2), ("fsdp", 4)])
def test_the_ranks_that_are_there_are_those_of_the_estimate(parallel: Any, size: int) -> None:
    layout = layout_of_world(World(parallel=parallel, size=size))
    assert layout == Layout(parallel, size, size if parallel == "fsdp" else 1)


@pytest.mark.slow
def test_a_run_trains_on_the_same_samples_in_smaller_parts(
    run_options: Callable[..., Train],
) -> None:
    whole = train(run_options("whole", max_steps=2))
    half = list(micro_batches_of(run_options()))[1]
    budget = estimate(half).total / GB * 1.0001
    parts = train(run_options("parts", max_steps=2, auto_batch_size=True, memory_budget=budget))
    (of_parts, _), (of_whole, _) = parts.losses["mmc4"], whole.losses["mmc4"]
    assert of_parts.loss == pytest.approx(of_whole.loss, rel=1e-4)
    assert parts.drops == whole.drops
