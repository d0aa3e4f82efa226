"""What telemetry costs a step: values and files in it, samples of GPU and host beside it.

    python -m benchmarks.telemetry [--steps 60] [--folder .bench]

A tiny Flamingo trains on the bundled sample for some steps with everything on (TensorBoard too,
where it is installed), samples taken ten times as often as usual. What the trainer's thread spends
in `Telemetry.report` is inside a step; what the sampler's thread spends is counted whole, as if it
stood in the step's way, at the usual 10 s between samples. Steps of a real model are longer, and
telemetry's time does not grow with them: the share is then smaller.

Without a GPU, its samples are not in the figure; NVML is asked ten questions a sample.
"""

import argparse
import importlib.util
import shutil
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.gates import Gate, print_gates
from flamingo.launch.run import train
from flamingo.models.flamingo.options import Train
from flamingo.telemetry.jsonl import read_log
from flamingo.telemetry.names import METRICS_NAME
from flamingo.telemetry.sampler import Sampler
from flamingo.train.telemetry import Telemetry
from pipelines.mmc4.options import ConvertMmc4
from pipelines.mmc4.run import convert_mmc4

ROOT = Path(__file__).resolve().parents[1]
AIM_PERCENT = 1.0
_SECONDS = 10.0  # between samples, by default


def bench(folder: Path, *arguments: str) -> list[Gate]:
    """Train, and say what of it was telemetry."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=60)
    told = parser.parse_args(arguments)
    options = _options(folder / "telemetry", told.steps)
    reporting = _timed(Telemetry, "report", time.perf_counter)
    sampling = _timed(Sampler, "_sample", time.thread_time)
    train(options)
    steps = [line["seconds"] for line in read_log(f"{options.run_name}/{METRICS_NAME}")]
    step = median(steps)
    report, sample = median(reporting), median(sampling)
    print(
        f"step {step * 1e3:.1f} ms; report {report * 1e3:.3f} ms a step (mean "
        f"{sum(reporting) / len(reporting) * 1e3:.3f}); a sample {sample * 1e3:.2f} ms of "
        f"processor, {len(sampling)} of them"
    )
    share = 100 * (sum(reporting) / len(reporting) / step + sample / _SECONDS)
    return [Gate("telemetry of a step", share, AIM_PERCENT, at_most=True, unit="%")]


def _timed(kind: type, name: str, clock: Callable[[], float]) -> list[float]:
    """Replace a method by one that also notes how long it took, s."""
    taken: list[float] = []
    whole = getattr(kind, name)

    def timed(self: Any, *arguments: Any) -> Any:
        start = clock()
        try:
            return whole(self, *arguments)
        finally:
            taken.append(clock() - start)

    setattr(kind, name, timed)
    return taken


def _options(folder: Path, steps: int) -> Train:
    """A run on the bundled sample, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    sample = ROOT / "examples" / "mmc4"
    shards = folder / "shards"
    convert_mmc4(
        ConvertMmc4(
            docs=(str(sample),),
            images=str(sample / "images"),
            output=str(shards),
            num_shards=4,
            workers=0,
        ),
        quiet=True,
    )
    place = ROOT / "examples" / "make_tiny_models.py"
    spec = importlib.util.spec_from_file_location("make_tiny_models", place)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(place)
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    models.make_language_model(folder / "lm", models.make_tokenizer(folder / "lm"))
    models.make_clip(folder / "clip")
    return Train(
        mmc4_shards=str(shards),
        lm_path=str(folder / "lm"),
        vision_encoder_path=str(folder / "clip"),
        run_name=str(folder / "run"),
        mmc4_min_image_bytes=0,
        max_steps=steps,
        report_to="tensorboard" if find_spec("tensorboard") else "",
        telemetry_seconds=_SECONDS / 10,
        offline=True,
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    told, rest = parser.parse_known_args()
    print_gates(bench(told.folder.resolve(), *rest))


if __name__ == "__main__":
    main()
