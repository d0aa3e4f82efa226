"""What the order of training costs and mixes, worked out for a run of the usual size.

    python -m benchmarks.order [--samples 20000000] [--shards 20000] [--batch 2048] [--hosts 8]

No data is read: the order is arithmetic, so it can be asked. For an epoch of 20M samples in 20,000
shards of 350 KB documents, B = 2,048 on 8 hosts of 8 ranks, windows of `--window` shards a lane,
and as many lanes as B or an eighth of them (each then fills 8 slots of a batch):

* shards at hand: those of the windows that a host's lanes are in, and the bytes of these;
* bytes that a host reads in an epoch, beside its fair share of the data set;
* how far samples travel: of two samples that lie next to each other in a shard, how many steps
  apart are they used; and how many shards the samples of one batch come from;
* memory and time: of the order's tables for a rank, and a place's.
"""

import argparse
import time
import tracemalloc
from pathlib import Path

import numpy as np

from benchmarks.gates import Gate, print_gates
from flamingo.data.order import LanePosition, Lanes

SAMPLE_BYTES = 350_000
RANKS_A_HOST = 8
#: Of a host's fair share of the data set, what it reads at most.
AIM_READ = 1.05
AIM_RANK_MIB = 200.0
AIM_PLACE_MICROSECONDS = 20.0
#: Neighbours in a shard are to be this many places of a lane apart, at the median.
AIM_STEPS_APART = 1000.0


def bench(folder: Path, *arguments: str) -> list[Gate]:
    """The simulation; `folder` is not used."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=20_000_000)
    parser.add_argument("--shards", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--window", type=int, default=8)
    told = parser.parse_args(arguments)
    sizes = _sizes(told.samples, told.shards)
    gates = []
    for lanes in (told.batch, told.batch // 8):
        print(
            f"{told.samples:,} samples, {told.shards:,} shards, B = {told.batch:,}, "
            f"{lanes:,} lanes, {told.hosts} hosts x {RANKS_A_HOST} ranks, windows of "
            f"{told.window} shards"
        )
        order = Lanes(sizes, seed=1, stream="mmc4", num_lanes=lanes, window_shards=told.window)
        gates += _hosts(order, np.array(sizes), told.hosts, told.window)
        gates += _distances(order, told.batch // lanes)
        gates += _costs(order, max(1, lanes // (told.hosts * RANKS_A_HOST)))
    return gates


def _sizes(samples: int, shards: int) -> list[int]:
    """Shards of about equal size, as a conversion leaves them: some hold fewer."""
    rng = np.random.default_rng(0)
    sizes = np.full(shards, samples // shards)
    sizes[rng.integers(0, shards, shards // 10)] -= rng.integers(0, samples // shards // 2)
    return [int(size) for size in sizes]


def _hosts(order: Lanes, sizes: np.ndarray, hosts: int, window: int) -> list[Gate]:
    """What a host has at hand and reads; the worst of all hosts."""
    lanes = order.num_lanes // hosts
    epochs, at_hand = [], []
    for host in range(hosts):
        owned = range(host * lanes, (host + 1) * lanes)
        epochs.append({int(s) for lane in owned for s in order.pieces(lane, 0)[:, 0]})
        windows = {
            shard for lane in owned for shard in order.upcoming(lane, LanePosition())[:window]
        }
        at_hand.append(len(windows))
    read = [int(sizes[list(shards)].sum()) * SAMPLE_BYTES for shards in epochs]
    fair = len(order) * SAMPLE_BYTES / hosts
    mean = int(sizes.mean()) * SAMPLE_BYTES
    print(f"shards at hand on a host: {max(at_hand):,} ({max(at_hand) * mean / 1e9:,.0f} GB)")
    print(
        f"read by a host in an epoch: {max(read) / 1e12:.3f} TB, a fair share is {fair / 1e12:.3f}"
    )
    lengths = [order.size(lane, 0) for lane in range(order.num_lanes)]
    print(f"a lane's epoch: {min(lengths):,} to {max(lengths):,} samples")
    twice = sum(map(len, epochs)) - len(set().union(*epochs))
    return [
        Gate("bytes a host reads, of its fair share", max(read) / fair, AIM_READ, at_most=True),
        Gate("shards that two hosts read", twice, 0, at_most=True),
    ]


def _distances(order: Lanes, slots: int) -> list[Gate]:
    """How far apart neighbours of a shard are used, over a few lanes; and the shards of a batch.

    Args:
        order: of the run.
        slots: of a batch that a lane fills.
    """
    apart, spread = [], []
    for lane in range(0, order.num_lanes, max(1, order.num_lanes // 8)):
        places = np.array(
            [order.place(lane, LanePosition(0, n)) for n in range(order.size(lane, 0))]
        )
        step_of = {(int(s), int(n)): step for step, (s, n) in enumerate(places)}
        apart += [
            abs(step - step_of[s, n + 1]) / slots
            for (s, n), step in step_of.items()
            if (s, n + 1) in step_of
        ]
        rows = order.pieces(lane, 0)
        first = {int(s): k for k, s in enumerate(rows[:, 0])}
        begins = np.concatenate(([0], np.cumsum(rows[:, 2])))
        on_disk = np.array([begins[first[int(s)]] + n for s, n in places])
        spread += np.abs(on_disk - np.arange(len(places))).tolist()
    starts = [
        order.place(lane, LanePosition(0, slot))
        for lane in range(order.num_lanes)
        for slot in range(slots)
    ]
    shards, batch = len({shard for shard, _ in starts}), slots * order.num_lanes
    print(
        f"neighbours of a shard are used {np.median(apart):,.0f} steps apart (median; 5%: "
        f"{np.percentile(apart, 5):,.0f}, 95%: {np.percentile(apart, 95):,.0f})"
    )
    print(f"a sample travels {np.median(spread):,.0f} places in its lane (median)")
    print(f"a batch of {batch:,} comes from {shards:,} shards")
    return [
        Gate(
            "steps between neighbours of a shard", float(np.median(apart)), AIM_STEPS_APART / slots
        ),
    ]


def _costs(order: Lanes, lanes: int) -> list[Gate]:
    """A rank's: memory of its tables in mid-run, time of a place."""
    fresh = Lanes(
        order.sizes,
        seed=1,
        stream="mmc4",
        num_lanes=order.num_lanes,
        window_shards=order.window_shards,
    )
    tracemalloc.start()
    start = time.perf_counter()
    for lane in range(lanes):
        fresh.place(lane, LanePosition())
    first = time.perf_counter() - start
    grown = tracemalloc.get_traced_memory()[0] / 2**20  # numpy tells its arrays too
    tracemalloc.stop()
    start = time.perf_counter()
    for index in range(1000):
        for lane in range(lanes):
            fresh.place(lane, LanePosition(0, index))
    place = (time.perf_counter() - start) / (1000 * lanes) * 1e6
    print(f"a rank's {lanes} lanes: first places after {first:.2f} s, then {place:.1f} us each")
    return [
        Gate("memory of a rank's order", grown, AIM_RANK_MIB, at_most=True, unit=" MiB"),
        Gate("a place", place, AIM_PLACE_MICROSECONDS, at_most=True, unit=" us"),
    ]


if __name__ == "__main__":
    import sys

    print_gates(bench(Path(), *sys.argv[1:]))
