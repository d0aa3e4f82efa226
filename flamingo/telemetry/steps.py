"""What is known of one optimizer step, and of the steps between two lines of the console.

Times of an interval are told as mean and 95th percentile: a mean hides the one step in twenty that
waits for a disk. Rates are of the interval's whole time; so a validation or a save between two
steps does not count in them.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from flamingo.data.counts import StreamCounts
from flamingo.data.damage import DAMAGED


@dataclass(slots=True)
class StepReport:
    """One optimizer step.

    Attributes:
        step: from 1.
        losses: mean cross-entropy of each stream's target tokens, in nats, before the multiplier.
        learning_rate: that the step was taken with.
        gradient_norm: global, before clipping.
        skipped: the loss or a gradient was not finite; the weights stayed as they were.
        streams: what each stream gave, on all ranks.
        drops: documents and images that selection left out on the way, by reason.
        wait_seconds: spent waiting for the step's data; a device that has work does not wait.
        seconds: of the whole step.
    """

    step: int
    losses: dict[str, float]
    learning_rate: float
    gradient_norm: float
    skipped: bool
    streams: dict[str, StreamCounts] = field(default_factory=dict)
    drops: Counter[str] = field(default_factory=Counter)
    wait_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def total(self) -> StreamCounts:
        """The counts of all streams together."""
        return sum(self.streams.values(), StreamCounts())

    def line(self) -> dict[str, Any]:
        """The step as a JSON object."""
        total = self.total
        return {
            "step": self.step,
            "losses": self.losses,
            "learning_rate": self.learning_rate,
            "gradient_norm": self.gradient_norm,
            "skipped": self.skipped,
            "samples": total.samples,
            "tokens": total.tokens,
            "images": total.images,
            "positions": total.positions,
            "blank_images": total.blank_images,
            "streams": {name: _given(counts) for name, counts in self.streams.items()},
            "drops": dict(sorted(self.drops.items())),
            "wait_seconds": round(self.wait_seconds, 4),
            "seconds": round(self.seconds, 4),
        }


def interval_values(steps: Sequence[StepReport], *, num_gpus: int) -> dict[str, Any]:
    """The values of some consecutive steps, as a line of `metrics.jsonl` has them.

    Losses are means over the steps that were not skipped; per-GPU rates are of `num_gpus` ranks,
    whatever their device.

    Args:
        steps: at least one.
        num_gpus: ranks.
    """
    seconds = max(sum(step.seconds for step in steps), 1e-9)
    used = [step for step in steps if not step.skipped] or list(steps)
    streams: dict[str, StreamCounts] = {}
    for step in steps:
        for name, counts in step.streams.items():
            streams[name] = streams.get(name, StreamCounts()) + counts
    return {
        "steps": len(steps),
        "losses": {
            name: sum(step.losses[name] for step in used) / len(used) for name in used[-1].losses
        },
        "learning_rate": steps[-1].learning_rate,
        "gradient_norm": sum(step.gradient_norm for step in used) / len(used),
        "tokens_per_second": sum(counts.tokens for counts in streams.values()) / seconds,
        "samples_per_second": sum(counts.samples for counts in streams.values()) / seconds,
        "samples_per_second_per_gpu": {
            name: counts.samples / seconds / num_gpus for name, counts in streams.items()
        },
        "step_seconds": spread([step.seconds for step in steps]),
        "data_seconds": spread([step.wait_seconds for step in steps]),
        "data_share": sum(step.wait_seconds for step in steps) / seconds,
        "skipped": sum(step.skipped for step in steps),
        "bad_samples": sum(bad_samples(step.drops) for step in steps),
    }


def _given(counts: StreamCounts) -> dict[str, int]:
    """What a stream gave, without what was computed beside it, which a step tells as a sum."""
    beside = ("positions", "blank_images")
    return {name: count for name, count in asdict(counts).items() if name not in beside}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and 95th percentile (the smallest value that 95% do not exceed)."""
    ordered = sorted(values)
    at = math.ceil(0.95 * len(ordered)) - 1
    return {"mean": sum(ordered) / len(ordered), "p95": ordered[at]}


def bad_samples(drops: Mapping[str, int]) -> int:
    """Samples that were dropped because they are damaged; what selection left out is not."""
    return sum(drops.get(f"document:{reason}", 0) for reason in DAMAGED)


def perplexity(loss: float) -> float:
    """exp of a loss in nats per token; infinite where that is beyond a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
