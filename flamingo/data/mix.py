"""How the slots of a global batch are shared: among streams, and among ranks.

B samples of a stream make its part of a global batch; G lanes, which divide B, fill them. A rank
has whole lanes. With `--mix`, one batch is shared by the streams in fixed integer parts, laid out
so that every rank's part of the batch holds about the same mixture.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mmdata.errors import UserError
from mmdata.wording import plural


@dataclass(frozen=True, slots=True)
class Share:
    """A rank's part of a stream.

    Attributes:
        num_lanes: G, of the whole stream.
        samples_per_lane: slots of the global batch that a lane fills.
        lanes: this rank's.
    """

    num_lanes: int
    samples_per_lane: int
    lanes: range

    @property
    def batch_size(self) -> int:
        """B: samples of the stream in a global batch."""
        return self.num_lanes * self.samples_per_lane


def whole_share(batch_size: int, *, num_lanes: int | None, rank: int = 0, world: int = 1) -> Share:
    """An equal part of a stream.

    Args:
        batch_size: B.
        num_lanes: G; None: B.
        rank: of this process.
        world: ranks.

    Raises:
        UserError: the lanes do not divide B, or the ranks the lanes.
    """
    lanes = num_lanes or batch_size
    if batch_size % lanes:
        raise UserError(f"lanes {lanes}: expected a divisor of the {batch_size} samples of a batch")
    if lanes % world:
        fitting = ", ".join(str(number) for number in divisors(lanes))
        raise UserError(
            f"{plural(world, 'rank')} cannot share {plural(lanes, 'lane')} (a global batch "
            f"of {batch_size} samples): "
            f"expected one of {fitting} ranks"
        )
    owned = range(rank * lanes // world, (rank + 1) * lanes // world)
    return Share(lanes, batch_size // lanes, owned)


def accumulation(batch_size: int, micro_batch: int, world: int) -> int:
    """Micro-batches of a step on a rank that keep B on so many ranks.

    Args:
        batch_size: B, samples of a step on all ranks.
        micro_batch: samples of a micro-batch.
        world: ranks.

    Raises:
        UserError: B does not divide; names the numbers of ranks that do.
    """
    if batch_size % (micro_batch * world):
        fitting = [n for n in divisors(batch_size) if batch_size % (micro_batch * n) == 0]
        told = ", ".join(map(str, fitting)) or "none"
        raise UserError(
            f"a global batch of {plural(batch_size, 'sample')} is not {plural(world, 'rank')} x "
            f"micro-batches of {micro_batch}: numbers of ranks that fit: {told}; "
            f"{_fitting_micro_batches(batch_size, world)}"
        )
    return batch_size // (micro_batch * world)


def _fitting_micro_batches(batch_size: int, world: int) -> str:
    """Micro-batches that keep B on so many ranks."""
    if batch_size % world:
        return f"no micro-batch fits {plural(world, 'rank')}"
    fitting = ", ".join(map(str, divisors(batch_size // world)))
    return f"micro-batches that fit {plural(world, 'rank')}: {fitting}"


def divisors(number: int) -> list[int]:
    """All of them, in order."""
    return [one for one in range(1, number + 1) if number % one == 0]


def mix_slots(shares: Mapping[str, float], batch_size: int) -> dict[str, int]:
    """Slots of a global batch for each stream, by largest remainder (ties: first named).

    Args:
        shares: of the streams by name, in any unit.
        batch_size: B, slots in all.

    Raises:
        UserError: a share is not positive, or so small that it gets no slot.
    """
    if any(not share > 0 or share == float("inf") for share in shares.values()):
        told = ", ".join(f"{name}={share:g}" for name, share in shares.items())
        raise UserError(f"--mix {told}: expected shares above 0")
    total = sum(shares.values())
    exact = {name: batch_size * share / total for name, share in shares.items()}
    slots = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: slots[name] - exact[name])
    for name in by_remainder[: batch_size - sum(slots.values())]:
        slots[name] += 1
    for name, number in slots.items():
        if number == 0:
            raise UserError(
                f"--mix {name}={shares[name]:g}: comes to no slot of a batch of {batch_size}; "
                f"raise the share, or the batch to {_batch_for(shares[name] / total)} or more"
            )
    return slots


def _batch_for(share: float) -> int:
    """Samples of a batch in which a share comes to a slot for certain."""
    return int(1 / share) + 1


def mix_shares(slots: Mapping[str, int], *, rank: int = 0, world: int = 1) -> dict[str, Share]:
    """Each stream's part on a rank: the lanes of its slots in the rank's part of the batch.

    Args:
        slots: of a global batch, by stream.
        rank: from 0.
        world: ranks.

    Raises:
        UserError: the ranks do not divide the batch.
    """
    total = sum(slots.values())
    if total % world:
        fitting = ", ".join(map(str, divisors(total)))
        raise UserError(
            f"{plural(world, 'rank')} cannot share a global batch of "
            f"{plural(total, 'sample')}: expected one of "
            f"{fitting} ranks"
        )
    before = _layout(slots)
    low, high = rank * total // world, (rank + 1) * total // world
    return {
        name: Share(number, 1, range(before[low][name], before[high][name]))
        for name, number in slots.items()
    }


def _layout(slots: Mapping[str, int]) -> list[dict[str, int]]:
    """Slots of each stream before slot 0, 1, …, B: each slot goes to the stream furthest behind."""
    total = sum(slots.values())
    given = dict.fromkeys(slots, 0)
    before = [dict(given)]
    for slot in range(1, total + 1):
        behind = max(slots, key=lambda name: slots[name] * slot - given[name] * total)
        given[behind] += 1
        before.append(dict(given))
    return before
