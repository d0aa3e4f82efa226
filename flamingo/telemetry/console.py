"""The console: one calm line an interval, and on a terminal a bar with the time that is left."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm


class Console:
    """Lines on standard output, the bar on standard error.

    Args:
        total_steps: of the run.
        done: steps that were taken before.
        silent: say nothing, as ranks that are not the first do.
    """

    def __init__(self, *, total_steps: int, done: int, silent: bool = False) -> None:
        self._silent, self._total = silent, total_steps
        self._start, self._first = time.monotonic(), done
        self._bar = tqdm(
            total=total_steps,
            initial=done,
            desc="train",
            unit="step",
            disable=silent or not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    def advance(self) -> None:
        """One step more on the bar."""
        self._bar.update()

    def say(self, text: str) -> None:
        """A line."""
        if not self._silent:
            tqdm.write(text, file=sys.stdout)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """An interval, or what was measured on the validation streams."""
        if "validation" in values:
            self.say(f"step {step:>6}  validation loss {_named(values['validation']['losses'])}")
        else:
            self.say(self._interval(step, values))

    def event(self, step: int, kind: str, details: Mapping[str, Any]) -> None:
        """Events are told where they happen, or shown by a line of their own kind already."""

    def close(self) -> None:
        """End the bar."""
        self._bar.close()

    def _interval(self, step: int, values: Mapping[str, Any]) -> str:
        parts = [
            f"step {step:>6}",
            f"loss {_named(values['losses'])}{_over(values['steps'])}",
            f"lr {values['learning_rate']:.2e}",
            f"|grad| {values['gradient_norm']:.3f}",
            f"{values['samples_per_second']:.1f} samples/s",
            f"{values['tokens_per_second']:,.0f} tokens/s",
            f"wait {values['data_share']:.0%}",
        ]
        if values.get("mfu") is not None:
            parts.append(f"MFU {values['mfu']:.1%} ({values['mfu_with_padding']:.1%} with padding)")
        for name, words in (("skipped", "skipped"), ("bad_samples", "damaged samples")):
            if values[name]:
                parts.append(f"{words} {values[name]}")
        left = self._seconds_left(step)
        return "  ".join([*parts, f"left {duration(left)}"] if left >= 1 else parts)

    def _seconds_left(self, step: int) -> float:
        """By the pace of this start, validation and saves in it."""
        return (time.monotonic() - self._start) / max(1, step - self._first) * (self._total - step)


def duration(seconds: float) -> str:
    """0:12:30, or 2d 04:10:00."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02}:{minute:02}:{second:02}"
    return f"{hour}:{minute:02}:{second:02}"


def _over(steps: int) -> str:
    """What the losses of an interval are the mean of."""
    return f" (mean of {steps} steps)" if steps > 1 else ""


def _named(losses: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
