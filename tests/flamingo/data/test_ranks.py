"""The global batches are the same, sample for sample, on any number of ranks and workers.

Each rank is a process of its own. Two corpora, of each of which a threshold rejects a third: the
real sample (four shards: lanes get spans of them), and 40 small shards that are dealt whole.
"""

import json
import multiprocessing
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from flamingo.data.config import StreamConfig
from flamingo.data.order import Lanes, Position
from flamingo.data.stream import Stream
from mmdata.training_view.sequence import MediaTokenizer
from tests.flamingo.conftest import World
from tests.shard_factory import Dataset

from .conftest import PARITY, config_of, make_page, write_pages
from .rank_process import read_part

pytestmark = pytest.mark.slow
#: Real processes, each forked from one that has torch loaded: that takes most of a rank's start.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.flamingo.data.rank_process"])
B = 8
STEPS = 32
THRESHOLD = 0.33


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """40 shards of 3 to 5 documents; every third is below the threshold."""
    numbers = iter(range(1000))
    shards: list[list[dict[str, Any] | bytes]] = [
        [
            make_page(n, [0, 2], similarity=0.2 if n % 3 == 0 else 0.35)
            for n in [next(numbers) for _ in range(3 + shard % 3)]
        ]
        for shard in range(40)
    ]
    return write_pages(tmp_path_factory.mktemp("corpus"), shards)


class Run:
    """A run on some ranks: its processes, and what they saw."""

    def __init__(self, config: StreamConfig, folder: Path, world: int, workers: int) -> None:
        self.config, self.folder = asdict(config) | {"decode_threads": workers}, folder
        self.config |= {"batch_size": B // world, "global_batch_size": B}
        self.world = world
        folder.mkdir(exist_ok=True)

    def start(
        self, steps: int, first: int = 0, position: Position | None = None
    ) -> list[BaseProcess]:
        processes: list[BaseProcess] = []
        for rank in range(self.world):
            told = {
                "config": self.config,
                "tokenizer": str(PARITY / "tokenizer"),
                "rank": rank,
                "world": self.world,
                "steps": steps,
                "first": first,
                "position": position.record() if position else None,
                "output": str(self.folder / f"rank{rank}.jsonl"),
            }
            processes.append(PROCESSES.Process(target=read_part, args=(told,)))
            processes[-1].start()
        return processes

    def finish(self, steps: int, first: int = 0, position: Position | None = None) -> None:
        for process in self.start(steps, first, position):
            process.join(timeout=300)
            assert process.exitcode == 0

    def lines(self, rank: int) -> list[dict[str, Any]]:
        path = self.folder / f"rank{rank}.jsonl"
        if not path.exists():
            return []
        text = path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def whole_steps(self) -> int:
        """Steps that every rank has seen."""
        return min(len(self.lines(rank)) for rank in range(self.world))

    def batches(self) -> list[list[list[str]]]:
        """The global batches: the ranks' parts in their order."""
        parts = [self.lines(rank) for rank in range(self.world)]
        return [
            [sample for line in step for sample in line["samples"]]
            for step in zip(*parts, strict=False)
        ]

    def position(self, step: int) -> Position:
        """After so many steps, of all lanes."""
        parts = [self.lines(rank)[step - 1]["position"] for rank in range(self.world)]
        return Position.merge([Position.of_record(part) for part in parts])


def configuration(corpus: Dataset, **changes: Any) -> StreamConfig:
    return config_of(corpus.folder, batch_size=B, **changes)


@pytest.fixture(scope="module")
def undisturbed(corpus: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One process, no workers, nothing happens to it."""
    run = Run(configuration(corpus), tmp_path_factory.mktemp("undisturbed"), 1, 0)
    run.finish(STEPS)
    return run


def of_the_sample(world: World, *, resampled: bool) -> StreamConfig:
    """The real sample, in four shards, so that lanes get spans of them."""
    return config_of(
        world.shards,
        batch_size=B,
        min_similarity=THRESHOLD,
        max_tokens=4096,  # of a tokenizer that knows few words
        resampled=resampled,
    )


@pytest.fixture(scope="module")
def references(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[bool], list[list[list[str]]]]:
    """The sample's batches by (1, 0): with epochs, or drawn with replacement."""

    @cache
    def batches(resampled: bool) -> list[list[list[str]]]:
        config = of_the_sample(world, resampled=resampled)
        run = Run(config, tmp_path_factory.mktemp("reference"), 1, 0)
        run.finish(STEPS)
        return run.batches()

    return batches


@pytest.mark.parametrize(
    ("ranks", "workers", "resampled"),
    [(*at, resampled) for at in ((1, 2), (2, 1), (4, 3)) for resampled in (False, True)],
)
def test_global_batches_are_equal_sample_for_sample(
    ranks: int,
    workers: int,
    resampled: bool,
    references: Callable[[bool], list[list[list[str]]]],
    world: World,
    tmp_path: Path,
) -> None:
    run = Run(of_the_sample(world, resampled=resampled), tmp_path, ranks, workers)
    run.finish(STEPS)
    assert len(run.batches()) == STEPS
    assert run.batches() == references(resampled)


def test_the_threshold_rejects_a_third(world: World, tokenizer: MediaTokenizer) -> None:
    stream = Stream(of_the_sample(world, resampled=False), tokenizer, validation=True)
    used = sum(len(batch) for batch in stream.batches())
    assert stream.drops["document:below-similarity"] == pytest.approx(47 / 3, abs=2)
    assert used > 20


def test_lane_by_lane_nothing_is_read_twice_or_left_out(corpus: Dataset, undisturbed: Run) -> None:
    """Slot i of every batch is lane i's: what it used of an epoch is what the threshold leaves."""
    sizes = [len(shard) for shard in corpus.documents]
    order = Lanes(sizes, seed=7, stream="mmc4", num_lanes=B, window_shards=2)
    starts = [sum(sizes[:shard]) for shard in range(len(sizes))]
    for lane in range(B):
        used = [batch[lane][0] for batch in undisturbed.batches()]
        expected = []
        for epoch in (0, 1):
            rows = order.pieces(lane, epoch).tolist()
            numbers = [
                starts[shard] + first + n for shard, first, size in rows for n in range(size)
            ]
            expected.append({f"{n:012d}" for n in numbers if n % 3})
        first, second = (len(one) for one in expected)
        assert set(used[:first]) == expected[0]
        assert set(used[first : first + second]) == expected[1]
        assert first + second <= STEPS


def test_a_host_reads_only_its_lanes_shards(corpus: Dataset, tmp_path: Path) -> None:
    run = Run(configuration(corpus), tmp_path, 4, 1)
    run.finish(3)
    sizes = [len(shard) for shard in corpus.documents]
    order = Lanes(sizes, seed=7, stream="mmc4", num_lanes=B, window_shards=2)
    opened = [run.lines(rank)[-1]["tars"] for rank in range(4)]
    names = [path.name for path in sorted(corpus.folder.glob("*.tar"))]
    for rank in range(4):
        mine = {int(row[0]) for lane in (2 * rank, 2 * rank + 1) for row in order.pieces(lane, 0)}
        assert opened[rank]
        assert set(opened[rank]) <= {names[shard] for shard in mine}
        # Once for the index, once to read: no shard is opened over and over.
        assert max(opened[rank].values()) <= 2
    hosts = [set(opened[0]) | set(opened[1]), set(opened[2]) | set(opened[3])]
    assert not hosts[0] & hosts[1]
    assert sum(map(len, opened)) == len(set().union(*opened))


def kill_at_random(run: Run, seed: object, first: int = 0, position: Position | None = None) -> int:
    """Start a run, SIGKILL it some steps on; returns the last step that every rank has seen."""
    processes = run.start(10_000, first, position)
    at = random.Random(str(seed)).randrange(3, 12)
    deadline = time.monotonic() + 300
    while run.whole_steps() < at and time.monotonic() < deadline:
        time.sleep(0.005)
    for process in processes:
        process.kill()
        process.join()
    assert run.whole_steps() >= at
    return first + run.whole_steps()


@pytest.mark.parametrize(("before", "after"), [((1, 2), (1, 2)), ((2, 1), (4, 3))])
def test_a_killed_run_goes_on_with_the_batches_of_an_undisturbed_one(
    before: tuple[int, int],
    after: tuple[int, int],
    corpus: Dataset,
    undisturbed: Run,
    tmp_path: Path,
) -> None:
    """SIGKILL at a random step, then other ranks and workers at the same B."""
    config = configuration(corpus)
    killed = Run(config, tmp_path / "killed", *before)
    step = min(kill_at_random(killed, before), STEPS - 4)
    resumed = Run(config, tmp_path / "resumed", *after)
    resumed.finish(STEPS, first=step, position=killed.position(step))
    assert killed.batches()[:step] + resumed.batches() == undisturbed.batches()


def test_a_run_killed_twice_goes_on_with_fewer_ranks_each_time(
    corpus: Dataset, undisturbed: Run, tmp_path: Path
) -> None:
    """4 ranks, then 2, then 1: positions of lanes are merged from the ranks that had them."""
    config = configuration(corpus)
    seen: list[list[list[str]]] = []
    position: Position | None = None
    for ranks, workers in ((4, 1), (2, 2)):
        run = Run(config, tmp_path / f"{ranks}", ranks, workers)
        # The second run starts where the first was saved, which may be before where it got to.
        reached = kill_at_random(run, ranks, len(seen), position)
        kept = min(reached, STEPS - 4 * ranks) - len(seen)
        position = run.position(kept)
        seen += run.batches()[:kept]
    last = Run(config, tmp_path / "1", 1, 0)
    last.finish(STEPS, first=len(seen), position=position)
    assert seen + last.batches() == undisturbed.batches()
