"""What a run tells while it goes: each step to `metrics.jsonl`, each interval to all who listen.

Values are read from the device once an optimizer step; nothing here reads from it again. Only the
first rank writes, but for the samples of GPU and host, which each rank takes of its own.

Cost, by `python -m benchmarks.telemetry` on two busy cores: 0.3 ms a step at the median, and 2 ms
of processor time beside it for a sample of the host.
"""

import time
from collections import Counter
from typing import Any

import torch

from flamingo.models.family import StepFlops, TrainableModel
from flamingo.models.registry import record_of
from flamingo.options.run import RunOptions
from flamingo.parallel.world import World
from flamingo.telemetry.console import Console
from flamingo.telemetry.host import Host
from flamingo.telemetry.nvml import Gpu, open_gpu
from flamingo.telemetry.peak import Compute, peak_flops
from flamingo.telemetry.sampler import Sampler
from flamingo.telemetry.steps import StepReport, interval_values, perplexity
from flamingo.telemetry.writers import JsonLinesWriter, TensorBoardWriter, WandbWriter, Writer
from flamingo.train.precision import PLAIN


class Telemetry:
    """Takes steps, measurements and events in, and hands them to the writers.

    Args:
        options: of the run.
        model: to count its operations.
        total_steps: of the run.
        done: steps that were taken before.
        world: ranks of the run; one that is not the first writes only samples of its own GPU.

    Attributes:
        drops: what selection left out since this start, by reason.

    Raises:
        UserError: a service does not let the run start.
    """

    def __init__(
        self,
        options: RunOptions,
        model: TrainableModel,
        *,
        total_steps: int,
        done: int,
        world: World,
    ) -> None:
        self._world = world
        self.drops: Counter[str] = Counter()
        self._every, self._total = options.logging_steps, total_steps
        self._recent: list[StepReport] = []
        self._console = Console(total_steps=total_steps, done=done, silent=not self._world.is_first)
        self._each, self._listening = self._open_writers(options, done)
        gpu = self._open_gpu(world.device)
        is_first_of_host = self._world.local_rank == 0
        self._sampler: Sampler | None = None
        if options.telemetry_seconds > 0 and (gpu is not None or is_first_of_host):
            self._sampler = Sampler(
                options.run_name,
                rank=self._world.rank,
                seconds=options.telemetry_seconds,
                gpu=gpu,
                host=Host(options.run_name) if is_first_of_host else None,
                step=done,
            )
        self._flops: StepFlops | None = None
        self._peak = _peak(world.device, options)
        if self._peak is not None and self._world.is_first:
            self._flops = model.step_flops()
        if self._peak is None and world.device.type == "cuda":
            name = torch.cuda.get_device_name(world.device)
            self._console.say(f"telemetry: the peak of {name} is not known, so there is no MFU")
        if done:
            self.event(done, "resumed")

    def _open_writers(self, options: RunOptions, done: int) -> tuple[list[Writer], list[Writer]]:
        """(of each step, of each interval); ranks that are not the first have none."""
        if not self._world.is_first:
            return [], []
        folder = options.run_name
        listening: list[Writer] = [self._console]
        if "tensorboard" in options.services:
            listening.append(TensorBoardWriter(folder, done=done))
        if "wandb" in options.services:
            writer = WandbWriter(
                folder,
                project=options.wandb_project,
                entity=options.wandb_entity,
                offline=options.offline,
                config=record_of(options),
            )
            listening.append(writer)
        return [JsonLinesWriter(folder, done=done)], listening

    def _open_gpu(self, device: torch.device) -> Gpu | None:
        """This rank's; without one the first rank says so, once."""
        if device.type != "cuda":
            self._console.say("telemetry: no GPU here, so none of its values")
            return None
        properties: Any = torch.cuda.get_device_properties(device)
        gpu, problem = open_gpu(f"GPU-{properties.uuid}")
        if gpu is None:
            self._console.say(problem)
        return gpu

    def report(self, step: StepReport) -> None:
        """Take one step in."""
        self.drops += step.drops
        self._recent.append(step)
        self._console.advance()
        if self._sampler is not None:
            self._sampler.step = step.step
        ends = step.step % self._every == 0 or step.step == self._total
        values = step.line()
        if ends:
            values["interval"] = self._interval()
        for writer in self._each:
            writer.write(step.step, values)
        if step.skipped:
            told = {"losses": step.losses, "gradient_norm": step.gradient_norm}
            self.event(step.step, "skipped", **told)
        if ends:
            for writer in self._listening:
                writer.write(step.step, values["interval"] | self._sampled())
            self._recent = []

    def validated(self, step: int, losses: dict[str, float]) -> None:
        """Take a measurement of the validation streams in."""
        perplexities = {name: perplexity(loss) for name, loss in losses.items()}
        for writer in self._listening:
            writer.write(step, {"validation": {"losses": losses, "perplexity": perplexities}})
        self.event(step, "validation", losses=losses)

    def saved(self, step: int, *, exit_code: int) -> None:
        """A save was begun; with an exit code, because a signal asked the run to stop."""
        if exit_code:
            self.event(step, "preempted", exit_code=exit_code)
        self.event(step, "saved")

    def event(self, step: int, kind: str, **details: Any) -> None:
        """Something that happened after a step: resumed, skipped, saved, validation, preempted."""
        told = {"time": round(time.time(), 3), **details}
        for writer in (*self._each, *self._listening):
            writer.event(step, kind, told)

    def say(self, text: str) -> None:
        """A line on the console."""
        self._console.say(text)

    def _interval(self) -> dict[str, Any]:
        values = interval_values(self._recent, num_gpus=self._world.size)
        if self._flops is not None and self._peak is not None:
            given = [counts for step in self._recent for counts in step.streams.values()]
            seconds = sum(step.seconds for step in self._recent)
            available = max(seconds, 1e-9) * self._peak * self._world.size
            values["flops"] = sum(self._flops.of(counts) for counts in given)
            values["flops_with_padding"] = sum(self._flops.of(one.computed) for one in given)
            for name in ("", "_with_padding"):
                values[f"mfu{name}"] = values[f"flops{name}"] / available
        return values

    def _sampled(self) -> dict[str, Any]:
        """The last sample of this rank's GPU and host."""
        latest = {} if self._sampler is None else self._sampler.latest
        return {name: latest[name] for name in ("gpu", "host") if name in latest}

    def close(self) -> None:
        """End all that was begun; the files hold what was told so far."""
        if self._sampler is not None:
            self._sampler.close()
        self._console.close()
        for writer in (*self._each, *(one for one in self._listening if one is not self._console)):
            writer.close()


def _peak(device: torch.device, options: RunOptions) -> float | None:
    """FLOP/s of this rank's GPU; None for a CPU or a GPU that is not known."""
    if device.type != "cuda":
        return None
    compute: Compute = "half"
    if options.precision == PLAIN:
        compute = "fp32" if options.fp32_matmul in (None, "highest") else "tf32"
    return peak_flops(torch.cuda.get_device_name(device), compute)
