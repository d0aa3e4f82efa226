"""What a run tells while it goes: JSON lines for machines, a console for people, a plot at the end.

Values are read from the device once an optimizer step. On a resume, lines of steps that are about
to be repeated are taken out of the log, so that each step stands there once.
"""

import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from mmdata.storage.atomic import write_atomically

LOG_NAME = "log.jsonl"
PLOT_NAME = "loss.png"


@dataclass(slots=True)
class StepReport:
    """One optimizer step.

    Attributes:
        step: from 1.
        losses: mean cross-entropy of each stream's target tokens, in nats, before the multiplier.
        learning_rate: that the step was taken with.
        gradient_norm: global, before clipping.
        skipped: the loss or a gradient was not finite; the weights stayed as they were.
        samples: of all streams.
        tokens: of all streams, without padding.
        images: encoded.
        drops: documents and images that selection left out on the way, by reason.
        wait_seconds: spent waiting for data.
        seconds: of the whole step.
    """

    step: int
    losses: dict[str, float]
    learning_rate: float
    gradient_norm: float
    skipped: bool
    samples: int
    tokens: int
    images: int
    drops: Counter[str] = field(default_factory=Counter)
    wait_seconds: float = 0.0
    seconds: float = 0.0

    def line(self) -> dict[str, Any]:
        """The step as a JSON object."""
        return {
            "step": self.step,
            "losses": self.losses,
            "learning_rate": self.learning_rate,
            "gradient_norm": self.gradient_norm,
            "skipped": self.skipped,
            "samples": self.samples,
            "tokens": self.tokens,
            "images": self.images,
            "drops": dict(sorted(self.drops.items())),
            "wait_seconds": round(self.wait_seconds, 4),
            "seconds": round(self.seconds, 4),
        }


class Telemetry:
    """Writes each step to the log, and to the console every `logging_steps`.

    Without a folder, on ranks that are not the first, it only counts.
    """

    def __init__(
        self, folder: str | None, *, total_steps: int, done: int, logging_steps: int
    ) -> None:
        self._is_silent = folder is None
        path = os.devnull if folder is None else os.path.join(folder, LOG_NAME)
        if folder is not None:
            forget_after(path, done)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115
        self._every = logging_steps
        self._total = total_steps
        self._recent: list[StepReport] = []
        self.drops: Counter[str] = Counter()
        self._bar = tqdm(
            total=total_steps,
            initial=done,
            desc="train",
            unit="step",
            disable=self._is_silent or not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    def report(self, step: StepReport) -> None:
        """Take one step in."""
        self._file.write(json.dumps(step.line()) + "\n")
        self._file.flush()
        self.drops += step.drops
        self._recent.append(step)
        self._bar.update()
        if step.step % self._every == 0 or step.step == self._total:
            self.say(self._console_line())
            self._recent = []

    def say(self, text: str) -> None:
        """A line on the console."""
        if not self._is_silent:
            tqdm.write(text, file=sys.stdout)

    def _console_line(self) -> str:
        """The steps since the last line, averaged."""
        recent = self._recent
        seconds = max(sum(step.seconds for step in recent), 1e-9)
        used = [step for step in recent if not step.skipped] or recent
        losses = "  ".join(
            f"{name} {sum(step.losses[name] for step in used) / len(used):.4f}"
            for name in used[-1].losses
        )
        skipped = sum(step.skipped for step in recent)
        waiting = sum(step.wait_seconds for step in recent) / seconds
        text = (
            f"step {recent[-1].step:>6}  loss {losses}  lr {recent[-1].learning_rate:.2e}  "
            f"|grad| {recent[-1].gradient_norm:.3f}  "
            f"{sum(step.samples for step in recent) / seconds:.1f} samples/s  "
            f"{sum(step.tokens for step in recent) / seconds:,.0f} tokens/s  wait {waiting:.0%}"
        )
        return f"{text}  skipped {skipped}" if skipped else text

    def close(self) -> None:
        """End the bar and the log."""
        self._bar.close()
        self._file.close()


def forget_after(path: str, done: int) -> None:
    """Take lines of later steps out of the log; a line that a crash cut goes too."""
    if not os.path.exists(path):
        return
    kept = [line for line in read_log(path) if line["step"] <= done]
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())


def read_log(path: str) -> list[dict[str, Any]]:
    """The steps of a log, without a last line that a crash cut short."""
    lines = []
    with open(path, encoding="utf-8") as file:
        for text in file:
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
    return lines


def plot_losses(folder: str) -> str:
    """Draw the run's losses over its steps to `loss.png`; returns the path.

    Each step as it was, faintly, and a running mean over 5% of the run.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = read_log(os.path.join(folder, LOG_NAME))
    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=110, layout="constrained")
    window = max(1, len(lines) // 20)
    _plot_validation(axes, os.path.join(folder, "validation.jsonl"))
    for name in sorted({name for line in lines for name in line["losses"]}):
        points = [
            (line["step"], line["losses"][name])
            for line in lines
            if name in line["losses"] and not line["skipped"]
        ]
        steps, values = [p[0] for p in points], [p[1] for p in points]
        (drawn,) = axes.plot(steps, values, alpha=0.3, linewidth=1)
        recent = [values[max(0, end - window) : end] for end in range(1, len(values) + 1)]
        means = [sum(part) / len(part) for part in recent]
        axes.plot(steps, means, color=drawn.get_color(), label=name)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss, nats per target token")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    path = os.path.join(folder, PLOT_NAME)
    figure.savefig(path)
    pyplot.close(figure)
    return path


def _plot_validation(axes: Any, path: str) -> None:
    """The losses on data that is not trained on, as points joined by dashes."""
    lines = read_log(path) if os.path.exists(path) else []
    for name in sorted({name for line in lines for name in line["losses"]}):
        points = [(line["step"], line["losses"][name]) for line in lines if name in line["losses"]]
        axes.plot(*zip(*points, strict=True), "o--", markersize=3, label=f"{name} (validation)")


class Stopwatch:
    """Adds up the time spent in one kind of work."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = 0.0

    def __enter__(self) -> "Stopwatch":
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start
