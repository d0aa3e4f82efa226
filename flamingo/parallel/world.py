"""The ranks of a run, as every other module sees them.

A `World` says who this process is and carries the few things that ranks tell each other outside
the model: sums of counts, small objects, errors. A world of one needs no process group and answers
by itself, so that no caller asks how many there are.

Counts and objects travel over gloo between CPUs, on GPUs too: that costs no wait for the device.
"""

import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Literal, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from mmdata.errors import MMDataError, RelayedError, UserError

Parallel = Literal["none", "ddp", "fsdp", "hsdp"]
_T = TypeVar("_T")
#: Where torch's allocator is told how to work; every version reads the first.
_ALLOCATOR_VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
#: Says what a rank does from now on: the step (from 1), in words.
Mark = Callable[[int, str], None]


def unmarked(step: int, doing: str) -> None:
    """Nobody waits for a rank that is alone."""


@dataclass(frozen=True, slots=True)
class World:
    """This process among the ranks of a run.

    Attributes:
        rank: 0 to size - 1.
        size: ranks.
        local_rank: among the ranks of this host.
        local_size: ranks of this host.
        parallel: how the model is spread over them.
        device: of this rank.
        mesh: of the ranks, one-dimensional, or for hsdp (copies, shards); None for one rank.
        mark: says what this rank does, so that others can name it; every rank has to say the same
            things in the same order.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    parallel: Parallel = "none"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    mesh: DeviceMesh | None = None
    mark: Mark = unmarked

    @property
    def is_first(self) -> bool:
        """Whether this rank writes what one rank has to write."""
        return self.rank == 0

    @property
    def is_sharded(self) -> bool:
        """Whether parameters are DTensors."""
        return self.parallel in ("fsdp", "hsdp")

    def total(self, values: Sequence[float]) -> list[float]:
        """The sum over ranks of each value, in float64. Every rank has to ask."""
        if self.size == 1:
            return list(values)
        summed = torch.tensor(list(values), dtype=torch.float64)  # counts up to 2 ** 53 are exact
        dist.all_reduce(summed)
        return summed.tolist()

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over ranks of a tensor on the device, in place and without waiting for it."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """A small object of each rank, in order of ranks. Every rank has to ask."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.total([0.0])

    def exchange(self, work: Callable[[], _T]) -> list[_T]:
        """What `work` gives on each rank, in order of ranks.

        Raises:
            MMDataError: it failed on a rank; all of them end (see `together`).
        """
        if self.size == 1:
            return [work()]
        outcome, error = None, None
        try:
            outcome = work()
        except MMDataError as found:
            error = found
        answers = self.gather((outcome, _told(error)))
        self._end_all([told for _, told in answers], error)
        return [outcome for outcome, _ in answers]

    @contextmanager
    def together(self) -> Iterator[None]:
        """What one rank finds wrong in here ends all of them, and only the first says it.

        Ranks must not speak to each other inside.

        Raises:
            MMDataError: on the first rank the error; on the others a silent `RelayedError`.
        """
        error = None
        try:
            yield
        except MMDataError as found:
            if self.size == 1:
                raise
            error = found
        self._end_all(self.gather(_told(error)), error)

    def end_with(self, error: MMDataError) -> NoReturn:
        """Raise an error that every rank has found, so that only the first says it."""
        raise error if self.is_first else RelayedError("", error.exit_code)

    def _end_all(self, told: Sequence[tuple[str, int] | None], own: MMDataError | None) -> None:
        """Raise if any rank has told of an error."""
        rank = next((number for number, one in enumerate(told) if one is not None), None)
        if rank is None:
            return
        text, exit_code = told[rank] or ("", 0)
        if not self.is_first:
            raise RelayedError("", exit_code) from own
        if own is not None:
            raise own
        raise RelayedError(f"{text} (on rank {rank})", exit_code)


def _told(error: MMDataError | None) -> tuple[str, int] | None:
    """An error as ranks tell it: exceptions with arguments of their own do not travel."""
    return None if error is None else (str(error), error.exit_code)


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which rank this process is, as whoever started it says."""

    rank: int
    size: int
    local_rank: int
    local_size: int


def ranks_of_environment(environ: Mapping[str, str]) -> Ranks | None:
    """What torchrun's variables say; None without them.

    Raises:
        UserError: some are missing, or are no numbers that fit.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    given = {name: environ[name] for name in names if name in environ}
    if "RANK" not in given and "WORLD_SIZE" not in given:
        return None
    told = ", ".join(f"{name}={given[name]}" if name in given else f"no {name}" for name in names)
    try:
        ranks = Ranks(*(int(given[name]) for name in names))
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{told}: expected all four as numbers, as torchrun sets them; unset them to train "
            "with one process"
        ) from error
    if not (0 <= ranks.rank < ranks.size and 0 <= ranks.local_rank < ranks.local_size):
        raise UserError(f"{told}: expected ranks from 0 to their number less one")
    return ranks


@contextmanager
def join(
    parallel: str = "auto",
    *,
    device: torch.device | None = None,
    timeout_seconds: float = 600.0,
    shard_ranks: int | None = None,
    environ: Mapping[str, str] = os.environ,
    init_method: str = "env://",
    mark: Mark = unmarked,
) -> Iterator[World]:
    """The world of this process, for as long as the run lasts.

    Args:
        parallel: auto, ddp, fsdp or hsdp; auto is ddp where there are several ranks.
        device: kind of device; a rank on a GPU takes the one of its local rank.
        timeout_seconds: that ranks wait for each other.
        shard_ranks: hsdp: ranks that share one copy of the model; None: those of a host.
        environ: who this process is.
        init_method: where ranks find each other (torch's).
        mark: of the world.

    Raises:
        UserError: the variables or `shard_ranks` do not fit.
    """
    ranks = ranks_of_environment(environ) or Ranks(0, 1, 0, 1)
    kind: Any = parallel
    if parallel == "auto" or (parallel == "ddp" and ranks.size == 1):
        kind = "none" if ranks.size == 1 else "ddp"
    own = _own_device(device or torch.device("cpu"), ranks)
    if kind == "none":
        yield World(device=own)
        return
    shape = _mesh_shape(kind, ranks, shard_ranks)
    _open_group(ranks, own, timeout_seconds, init_method)
    world = World(
        **asdict(ranks),
        parallel=kind,
        device=own,
        mesh=init_device_mesh(own.type, shape, mesh_dim_names=("copies", "shards")[-len(shape) :]),
        mark=mark,
    )
    try:
        yield world
    except BaseException:
        # No barrier, others may be elsewhere. NCCL's end could wait for them as well: on GPUs it
        # is left to the end of the process. Closing gloo's connections tells the others at once.
        if own.type != "cuda":
            dist.destroy_process_group()
        raise
    world.barrier()
    dist.destroy_process_group()


def _open_group(
    ranks: Ranks, device: torch.device, timeout_seconds: float, init_method: str
) -> None:
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    # A world of one has nobody to meet: its store is its own memory.
    how: dict[str, Any] = (
        {"store": HashStore()} if ranks.size == 1 else {"init_method": init_method}
    )
    if device.type == "cuda" and device.index is not None:
        how["device_id"] = device  # NCCL then connects now, and guesses no device at a barrier
    dist.init_process_group(
        backend,
        rank=ranks.rank,
        world_size=ranks.size,
        timeout=timedelta(seconds=timeout_seconds),
        **how,
    )


def _own_device(device: torch.device, ranks: Ranks) -> torch.device:
    if device.type != "cuda" or ranks.size == 1:
        return device
    if ranks.local_rank >= torch.cuda.device_count():
        raise UserError(
            f"local rank {ranks.local_rank}: there are {torch.cuda.device_count()} GPUs here; "
            "start as many ranks on a host as it has GPUs"
        )
    own = torch.device("cuda", ranks.local_rank)
    torch.cuda.set_device(own)
    return own


def _mesh_shape(kind: Parallel, ranks: Ranks, shard_ranks: int | None) -> tuple[int, ...]:
    """(ranks,), or for hsdp (copies, shards)."""
    if kind != "hsdp":
        if shard_ranks is not None:
            raise UserError("--shard-ranks goes with --parallel hsdp")
        return (ranks.size,)
    shards = shard_ranks or ranks.local_size
    if ranks.size % shards:
        raise UserError(
            f"--shard-ranks {shards}: expected a divisor of the {ranks.size} ranks of the run"
        )
    return (ranks.size // shards, shards)


def prefer_expandable_segments(environ: MutableMapping[str, str]) -> None:
    """Have torch's allocator on GPUs grow its segments, since batches of any size leave gaps in
    fixed ones; before the first tensor is on a GPU, and unless the variables say how it allocates.
    """
    if not any(name in environ for name in _ALLOCATOR_VARIABLES):
        environ[_ALLOCATOR_VARIABLES[0]] = "expandable_segments:True"


def choose_device(name: str) -> torch.device:
    """`auto` is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: expected cpu, cuda or auto") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: no GPU is to be seen here")
    return device
