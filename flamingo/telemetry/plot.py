"""The run's losses as a picture, for a quick look; `mmdata train-report` says more."""

import os
from typing import Any

from flamingo.telemetry.jsonl import read_log
from flamingo.telemetry.names import METRICS_NAME, PLOT_NAME, VALIDATION_NAME


def plot_losses(folder: str) -> str:
    """Draw the run's losses over its steps to `loss.png`; returns the path.

    Each step as it was, faintly, and a running mean over 5% of the run.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = read_log(os.path.join(folder, METRICS_NAME))
    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=110, layout="constrained")
    window = max(1, len(lines) // 20)
    _plot_validation(axes, os.path.join(folder, VALIDATION_NAME))
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
