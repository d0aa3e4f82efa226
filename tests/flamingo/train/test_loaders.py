"""Ranks share the samples of a step, and how many samples that is stays as at the first launch."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from flamingo.data.stream import Stream
from flamingo.models.flamingo.options import Train
from flamingo.parallel.world import World
from flamingo.train.loaders import _micro_batches, decode_threads, make_streams
from mmdata.errors import UserError
from mmdata.training_view.sequence import MediaTokenizer
from mmdata.training_view.tokenizer import add_media_tokens, load_tokenizer
from tests.flamingo.conftest import World as Folders

Options = Callable[..., Train]


@pytest.fixture(scope="module")
def tokenizer(world: Folders) -> MediaTokenizer:
    loaded = load_tokenizer(str(world.lm), local_files_only=True, trust_remote_code=False)
    add_media_tokens(loaded)
    return MediaTokenizer(loaded)


def lanes_of(
    options: Train, tokenizer: MediaTokenizer, ranks: int, kept: dict[str, int] | None = None
) -> dict[str, list[list[int]]]:
    """Of each stream the lanes of each rank."""
    streams: list[list[Stream]] = [
        make_streams(options, tokenizer, 64, world=World(rank, ranks), kept=kept)
        for rank in range(ranks)
    ]
    return {
        one[0].config.name: [list(s.share.lanes) for s in one] for one in zip(*streams, strict=True)
    }


@pytest.mark.parametrize(("ranks", "each"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_on_other_ranks_a_step_has_the_samples_of_the_first_launch(
    run_options: Options, tokenizer: MediaTokenizer, ranks: int, each: int
) -> None:
    options = run_options(batch_size_mmc4=1, gradient_accumulation_steps=2)
    lanes = lanes_of(options, tokenizer, ranks, {"mmc4": 8})["mmc4"]
    assert [len(one) for one in lanes] == [each] * ranks
    assert [lane for one in lanes for lane in one] == list(range(8))


def test_at_the_first_launch_it_follows_from_the_options(
    run_options: Options, tokenizer: MediaTokenizer
) -> None:
    options = run_options(batch_size_mmc4=3, gradient_accumulation_steps=2)
    assert lanes_of(options, tokenizer, 2)["mmc4"] == [list(range(6)), list(range(6, 12))]


@pytest.mark.parametrize("changes", [{}, {"mix": "mmc4=1", "batch_size": 2}])
def test_ranks_that_do_not_fit_are_told_which_do(
    run_options: Options, tokenizer: MediaTokenizer, changes: dict[str, Any]
) -> None:
    options = run_options(batch_size_mmc4=2, **changes)
    told = (
        r"samples of a step: was 8, is 6: a global batch of 8 samples is not 3 ranks x "
        r"micro-batches of 2: numbers of ranks that fit: 1, 2, 4; .*--allow-new-batch-size"
    )
    with pytest.raises(UserError, match=told):
        make_streams(options, tokenizer, 64, world=World(0, 3), kept={"mmc4": 8})


def test_a_mixed_batch_is_kept_whole(
    run_options: Options, tokenizer: MediaTokenizer, world: Folders
) -> None:
    options = run_options(
        laion_shards=str(world.captions), mix="mmc4=0.75,laion=0.25", batch_size=1
    )
    lanes = lanes_of(options, tokenizer, 4, {"mmc4": 6, "laion": 2})
    assert [len(one) for one in lanes["mmc4"]] == [2, 1, 2, 1]
    assert [len(one) for one in lanes["laion"]] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("asked", "device", "cores", "ranks", "threads"),
    [
        (None, "cpu", 64, 1, 1),
        (None, "cuda", 64, 8, 7),
        (None, "cuda", 64, 1, 16),
        (None, "cuda", 2, 8, 1),
        (0, "cuda", 64, 8, 0),
        (3, "cpu", 64, 1, 3),
    ],
)
def test_threads_that_decode_are_this_ranks_share_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
    asked: int | None,
    device: str,
    cores: int,
    ranks: int,
    threads: int,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    options = Train(mmc4_shards="none", lm_path="none", run_name="none", workers=asked)
    world = World(0, ranks, 0, ranks, device=torch.device(device))
    assert decode_threads(options, world) == threads


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("mmc4", "--batch-size-mmc4"),
        ("laion", "--batch-size-laion"),
        ("web", "--stream-opt web.batch_size=N"),
    ],
)
def test_a_resume_that_does_not_fit_its_ranks_names_every_way(name: str, option: str) -> None:
    two_ranks = cast(World, SimpleNamespace(size=2))
    with pytest.raises(UserError) as raised:
        _micro_batches(name, 8, 8, two_ranks, 16)
    assert str(raised.value) == (
        f"{name}: samples of a step: was 8, is 16: a global batch of 8 samples is not 2 ranks x "
        "micro-batches of 8: numbers of ranks that fit: 1; micro-batches that fit 2 ranks: "
        f"1, 2, 4 ({option}); or start a new sequence of samples with --allow-new-batch-size"
    )
