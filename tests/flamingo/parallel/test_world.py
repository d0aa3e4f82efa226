"""Who a process is among the ranks of a run, and how an error of one of them ends all."""

from typing import Any

import pytest
import torch

from flamingo.parallel import world
from flamingo.parallel.world import Ranks, World, _mesh_shape, join, ranks_of_environment
from mmdata.errors import RelayedError, UserError

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}


def test_torchruns_variables_say_who_this_is() -> None:
    assert ranks_of_environment(TORCHRUN) == Ranks(rank=5, size=8, local_rank=1, local_size=4)


@pytest.mark.parametrize("environ", [{}, {"LOCAL_RANK": "1", "HOME": "/"}])
def test_without_them_there_is_one_process(environ: dict[str, str]) -> None:
    assert ranks_of_environment(environ) is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"LOCAL_RANK": None}, "no LOCAL_RANK.*expected all four"),
        ({"RANK": "one"}, "RANK=one.*expected all four"),
        ({"RANK": "8"}, "RANK=8.*from 0 to their number less one"),
    ],
)
def test_variables_that_do_not_fit_are_named(changes: dict[str, str | None], told: str) -> None:
    environ = {name: value for name, value in (TORCHRUN | changes).items() if value is not None}
    with pytest.raises(UserError, match=told):
        ranks_of_environment(environ)


@pytest.mark.parametrize(
    ("kind", "shard_ranks", "shape"),
    [("ddp", None, (8,)), ("fsdp", None, (8,)), ("hsdp", None, (2, 4)), ("hsdp", 2, (4, 2))],
)
def test_a_copy_is_shared_by_the_ranks_of_a_host(
    kind: str, shard_ranks: int | None, shape: tuple[int, ...]
) -> None:
    assert _mesh_shape(kind, Ranks(5, 8, 1, 4), shard_ranks) == shape  # type: ignore[arg-type]


def test_shards_that_do_not_divide_the_ranks_are_refused() -> None:
    with pytest.raises(UserError, match="--shard-ranks 3: expected a divisor of the 8 ranks"):
        _mesh_shape("hsdp", Ranks(5, 8, 1, 4), 3)
    with pytest.raises(UserError, match="--shard-ranks goes with --parallel hsdp"):
        _mesh_shape("ddp", Ranks(5, 8, 1, 4), 3)


@pytest.mark.parametrize("parallel", ["auto", "ddp"])
def test_one_process_needs_no_group(parallel: str) -> None:
    with join(parallel, environ={}) as world:
        assert (world.parallel, world.mesh) == ("none", None)
        assert not torch.distributed.is_initialized()
        assert world.total([1.5, 2]) == [1.5, 2]
        assert world.gather("x") == ["x"]
        assert world.exchange(lambda: 3) == [3]
        world.barrier()


def test_one_process_can_shard_and_leaves_no_group() -> None:
    with join("fsdp", environ={}) as world:
        assert world.is_sharded
        assert world.mesh is not None
        assert world.mesh.shape == (1,)
    assert not torch.distributed.is_initialized()
    with pytest.raises(KeyError), join("fsdp", environ={}):
        raise KeyError("anything")
    assert not torch.distributed.is_initialized()


def test_ranks_on_gpus_name_their_own_to_the_process_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(world.dist, "init_process_group", lambda *_, **how: asked.append(how))
    ranks = Ranks(rank=5, size=8, local_rank=1, local_size=4)
    for device in (torch.device("cuda", 1), torch.device("cpu")):
        world._open_group(ranks, device, 60.0, "env://")
    assert asked[0]["device_id"] == torch.device("cuda", 1)
    assert "device_id" not in asked[1]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"},) * 2,
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False"},) * 2,
    ],
)
def test_segments_grow_unless_the_allocator_was_told_how_to_work(
    given: dict[str, str], expected: dict[str, str]
) -> None:
    environ = dict(given)
    world.prefer_expandable_segments(environ)
    assert environ == expected


def test_alone_an_error_stays_itself() -> None:
    with pytest.raises(UserError, match=r"^wrong$"), World().together():
        raise UserError("wrong")
    with pytest.raises(UserError, match=r"^wrong$"):
        World().end_with(UserError("wrong"))


def test_only_the_first_rank_says_what_all_have_found() -> None:
    with pytest.raises(RelayedError, match=r"^$") as silent:
        World(rank=1, size=2).end_with(UserError("wrong"))
    assert silent.value.exit_code == UserError.exit_code
