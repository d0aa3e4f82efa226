"""`mmdata train --estimate`: what a rank's memory goes to, before anything is there to run.

Parameters, gradients, optimizer state and communication are counted from the model's parameters and
the ranks (`plan`); activations by a training pass without values (`simulate`). Configs and a
tokenizer are all that is read. What is meant is what torch allocates: CUDA's own context, NCCL's
buffers and what the allocator loses to rounding come on top, some 5 to 10%.

GB are 1e9 bytes here and everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from flamingo.memory.advice import advice
from flamingo.memory.largest_batch import passes_of, shapes_of
from flamingo.memory.live import GRADIENTS
from flamingo.memory.plan import Fixed, Layout, fixed_memory
from flamingo.memory.simulate import Pass, Simulation
from flamingo.models.family import TrainableModel
from flamingo.modules.hub import quiet_loading
from flamingo.options.run import RunOptions
from flamingo.train.build import build_empty
from flamingo.train.precision import PLAIN, settle
from mmdata.errors import UserError

GB = 1e9
_ACTIVATIONS = "activations: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Memory of the rank that holds most, in bytes.

    Attributes:
        layout: of the ranks.
        fixed: what no batch changes.
        passes: of each stream's largest micro-batch, or of all of these together.
        has_gradients: whether a pass may begin with gradients that are there already.
    """

    layout: Layout
    fixed: Fixed
    passes: tuple[Pass, ...]
    has_gradients: bool

    def of_pass(self, one: Pass) -> dict[str, int]:
        """Bytes by category at the largest moment of a pass."""
        fixed = self.fixed
        peak = one.peak_without if self.has_gradients else one.peak
        parts = {
            "parameters": fixed.parameters,
            "buffers": fixed.buffers,
            GRADIENTS: fixed.gradients if self.has_gradients else peak.get(GRADIENTS, 0),
            "optimizer": fixed.optimizer,
            "communication": fixed.communication,
        }
        rest = {name: number for name, number in peak.items() if name != GRADIENTS}
        return parts | {f"{_ACTIVATIONS}{name}": number for name, number in sorted(rest.items())}

    def moments(self) -> dict[str, dict[str, int]]:
        """Bytes by category at the largest moments of a step, by name of the moment."""
        fixed = self.fixed
        steady = {
            "parameters": fixed.parameters,
            "buffers": fixed.buffers,
            "optimizer": fixed.optimizer,
        }
        gradients = {GRADIENTS: fixed.gradients}
        found = {
            " + ".join(f"{of.name}: {of.text()}" for of in one.shapes): self.of_pass(one)
            for one in self.passes
        } | {
            "optimizer step": steady | gradients | {"optimizer's working": fixed.optimizer_working}
        }
        if fixed.tower_communication:
            gathered = {"communication": fixed.tower_communication}
            found["vision tower gathered"] = steady | gradients | gathered
        return found

    @property
    def largest(self) -> tuple[str, dict[str, int]]:
        """The moment that takes most."""
        return max(self.moments().items(), key=lambda one: sum(one[1].values()))

    @property
    def total(self) -> int:
        """Bytes at that moment."""
        return sum(self.largest[1].values())

    def text(self, options: RunOptions, budget: float | None) -> str:
        """The table that a person reads; with a budget in bytes, whether it fits."""
        name, parts = self.largest
        ranks = f"{self.layout.ranks} rank{'s' if self.layout.ranks > 1 else ''}"
        kind = "" if self.layout.parallel == "none" else f", {self.layout.parallel}"
        lines = [f"memory of a rank ({ranks}{kind}), in GB, at its largest moment ({name})"]
        lines += [_row(part, number) for part, number in parts.items() if number]
        lines.append(_row("total", self.total))
        if self.fixed.optimizer_cpu:
            lines.append(_row("optimizer, in the host's memory", self.fixed.optimizer_cpu))
        lines += ["at other moments"]
        for moment, others in self.moments().items():
            if moment != name:
                lines.append(_row(moment, sum(others.values())))
        lines.append(f"precision: {options.precision or PLAIN}")
        lines.append("CUDA's context, NCCL and the allocator's rounding take some 5 to 10% more")
        if budget is not None:
            lines.append(self._verdict(options, budget, parts))
        return "\n".join(lines) + "\n"

    def _verdict(self, options: RunOptions, budget: float, parts: Mapping[str, int]) -> str:
        if self.total <= budget:
            return f"fits {budget / GB:g} GB"
        told = advice(options, kind_of(parts), ranks=self.layout.ranks)
        return f"does not fit {budget / GB:g} GB; cheapest first: {'; '.join(told)}"


def kind_of(parts: Mapping[str, int]) -> str:
    """The largest kind of memory: parameters, gradients, optimizer, communication, activations."""
    kinds: dict[str, int] = {}
    for name, number in parts.items():
        kind = name.partition(":")[0].removesuffix("'s working")
        kinds[kind] = kinds.get(kind, 0) + number
    return max(kinds, key=lambda name: kinds[name])


def _row(name: str, num_bytes: int) -> str:
    return f"  {name:<52}{num_bytes / GB:>9.3f}"


class Estimator:
    """A model without weights, of which estimates are made."""

    def __init__(
        self,
        options: RunOptions,
        *,
        layout: Layout | None = None,
        device: torch.device | None = None,
        model: TrainableModel | None = None,
    ) -> None:
        """Args:
        options: of the run; micro-batches may be others later.
        layout: of the ranks; None: as the options say.
        device: whose kernels are meant; None: as the options say, the CPU's where there is no GPU.
        model: on the meta device, instead of the one that the options name.
        """
        quiet_loading()
        self.layout = layout or layout_of(options)
        model = model or build_empty(options)
        self.fixed = fixed_memory(model, options, self.layout)
        self._simulation = Simulation(model, options, device or kernels_of(options))

    def estimate(self, options: RunOptions, rules: Mapping[str, str] | None = None) -> Estimate:
        """The memory of a run with the options that this was made of, but for its batch sizes.

        Args:
            options: of the run.
            rules: of its streams, where known.
        """
        shapes = shapes_of(options, self.layout, rules)
        # Made where there is no GPU it may be meant for one, which is the larger of the two.
        passes = passes_of(options, shapes, on_gpu=options.device != "cpu")
        repeats = len(passes) > 1 or any(one.passes > 1 for one in shapes)
        return Estimate(
            layout=self.layout,
            fixed=self.fixed,
            passes=tuple(self._simulation.run(*one) for one in passes),
            # DDP's buckets outlive the step; of several ranks shards are small beside the rest.
            has_gradients=repeats or self.layout.parallel != "none",
        )


def estimate(options: RunOptions, **how: object) -> Estimate:
    """The memory of a run by kind and moment; see `Estimator` for `how`."""
    return Estimator(options, **how).estimate(options)  # type: ignore[arg-type]


def kernels_of(options: RunOptions) -> torch.device:
    """The device that a run would take, or the CPU in place of a GPU that is not here."""
    is_cpu = options.device == "cpu" or not torch.cuda.is_available()
    return torch.device("cpu" if is_cpu else "cuda")


def layout_of(options: RunOptions) -> Layout:
    """The layout on the ranks that the options ask for, whether they are there or not.

    Raises:
        UserError: how many is not said by a number.
    """
    ranks, local = options.estimate_ranks, options.nproc_per_node
    if ranks is None:
        told = [local or "1", options.nnodes.partition(":")[0]]
        if not all(one.isdigit() for one in told):
            raise UserError(
                f"--nproc-per-node {local}: how many that is depends on the machine; say it with "
                "--estimate-ranks"
            )
        ranks = int(told[0]) * int(told[1])
    of_host = int(local) if local is not None and local.isdigit() else None
    return Layout.of(options.parallel, ranks, options.shard_ranks or of_host)


def budget_of(options: RunOptions) -> float | None:
    """Bytes that a rank may take: as told, or the GPU's; None where neither is known."""
    if options.memory_budget is not None:
        return options.memory_budget * GB
    device = kernels_of(options)
    if device.type != "cuda":
        return None
    return float(torch.cuda.get_device_properties(device).total_memory)


def tell_estimate(options: RunOptions) -> str:
    """What `mmdata train --estimate` prints: of a run on a GPU, unless --device is a CPU."""
    options, _ = settle(options, torch.device("cpu" if options.device == "cpu" else "cuda"))
    return estimate(options).text(options, budget_of(options))
