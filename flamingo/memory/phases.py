"""Where the memory of a running step is: by category, at four moments of it.

Parameters, gradients and optimizer state are counted from their tensors. On a GPU the rest is what
the allocator says: `other` was there before the forward pass, `activations` came since. On a CPU no
allocator is asked; there every operation of a measured step is seen (`live`), and `allocated`,
`peak` and `reserved` are the memory of the whole process, which is said in the record.

`RUN/memory.jsonl` has a record a moment: {step, phase, categories: {name: bytes}, allocated, peak,
reserved, of}. Measured are the first two steps of a run and every `--memory-every`-th.
"""

import json
import os
import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from flamingo.memory.estimate import GB
from flamingo.memory.live import LiveMemory, local_storage
from flamingo.modules.placement import local_part
from flamingo.telemetry.names import MEMORY_NAME
from flamingo.train.loop import PHASES, Phase, Trainer

CATEGORIES = ("parameters", "gradients", "optimizer", "optimizer_cpu", "activations", "other")


@dataclass(frozen=True, slots=True)
class Moment:
    """Memory of a rank at one moment of a step, in bytes.

    Attributes:
        step: optimizer steps before this one.
        phase: of the step.
        categories: by `CATEGORIES`; without activations where nothing tells them.
        allocated: in tensors on the GPU, or resident of the process.
        peak: the most of that, since the step began or (on a CPU) the process.
        reserved: by the allocator; the same as `allocated` on a CPU.
        of: what the last three are of, `gpu` or `process`.
    """

    step: int
    phase: Phase
    categories: dict[str, int]
    allocated: int
    peak: int
    reserved: int
    of: str


def held_bytes(tensors: Iterable[Any]) -> dict[int, tuple[str, int]]:
    """(device, bytes) of each memory behind tensors that lies here, by its key."""
    found = {}
    for one in tensors:
        if isinstance(one, Tensor):
            for part in _plain(one):
                storage = local_storage(part)
                found[storage._cdata] = (storage.device.type, storage.nbytes())
    return found


def _plain(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors that one of a kind of its own (quantized, spread) is made of."""
    whole: Any = local_part(tensor)
    if not hasattr(type(whole), "__tensor_flatten__"):
        yield whole
        return
    names, _ = whole.__tensor_flatten__()
    for name in names:
        yield from _plain(getattr(whole, name))


def process_bytes() -> int:
    """Resident memory of this process (Linux; elsewhere its high-water mark)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return process_peak()


def process_peak() -> int:
    """The most that this process had, resident (Linux; its unit is another elsewhere)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class MemoryLog:
    """Measures some steps of a trainer, and always knows which moment was passed last.

    Attributes:
        phase: the last moment that the step under way has passed; None: none yet.
        moments: of the last measured step.
        before: the last measured moment before a forward pass.
    """

    def __init__(self, folder: str | None, trainer: Trainer, *, every: int | None) -> None:
        """Args:
        folder: of the run; None: nothing is written, on ranks but the first.
        trainer: to watch.
        every: steps between measurements; None: the first two only.
        """
        self._path = None if folder is None else os.path.join(folder, MEMORY_NAME)
        self.trainer, self._every, self._first = trainer, every, trainer.done
        self._live: LiveMemory | None = None
        self._is_on = False
        self._other = 0
        self.phase: Phase | None = None
        self.moments: dict[Phase, Moment] = {}
        self.before = self.measure("before forward")
        trainer.watch = self._pass

    @property
    def is_due(self) -> bool:
        """Whether the next step is measured."""
        done = self.trainer.done
        return done - self._first < 2 or (self._every is not None and done % self._every == 0)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around a step."""
        self.phase = None
        if not self.is_due:
            yield
            return
        self.moments, self._is_on = {}, True
        device = self.trainer.world.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif not self.trainer.options.compile:  # seen operation by operation, none is compiled
            self._live = LiveMemory()
        try:
            with self._live or nullcontext():
                yield
        finally:
            self._live, self._is_on = None, False
        self._write()

    def _pass(self, phase: Phase) -> None:
        self.phase = phase
        if not self._is_on:
            return
        moment = self.measure(phase)
        if phase == "before forward":
            self.before = moment
        before = self.moments.get(phase)
        # Of several passes of a step, the one that takes most.
        if before is None or sum(before.categories.values()) < sum(moment.categories.values()):
            self.moments[phase] = moment

    def measure(self, phase: Phase) -> Moment:
        """Now."""
        trainer = self.trainer
        device = trainer.world.device
        parameters = list(trainer.model.parameters())
        state = [value for one in trainer.optimizer.state.values() for value in one.values()]
        kinds = {
            "parameters": held_bytes([*parameters, *trainer.model.buffers()]),
            "gradients": held_bytes(one.grad for one in parameters),
            "optimizer": held_bytes(state),
        }
        found = {name: _on(device, kind) for name, kind in kinds.items()}
        found["optimizer_cpu"] = 0
        if device.type != "cpu":
            found["optimizer_cpu"] = _on(torch.device("cpu"), kinds["optimizer"])
        known = sum(found.values()) - found["optimizer_cpu"]
        if device.type == "cuda":
            allocated = torch.cuda.memory_allocated(device)
            if phase == "before forward":
                self._other = max(0, allocated - known)
            found["activations"] = max(0, allocated - known - self._other)
            found["other"] = self._other
            peak = torch.cuda.max_memory_allocated(device)
            reserved = torch.cuda.memory_reserved(device)
        else:
            keys = {key for kind in kinds.values() for key in kind}
            if self._live is not None:
                found["activations"] = self._live.beside(keys)
            allocated = reserved = process_bytes()
            peak = max(process_peak(), allocated)
            found["other"] = max(0, allocated - sum(found.values()))
        return Moment(
            step=trainer.done,
            phase=phase,
            categories={name: found[name] for name in CATEGORIES if name in found},
            allocated=allocated,
            peak=peak,
            reserved=reserved,
            of="gpu" if device.type == "cuda" else "process",
        )

    def _write(self) -> None:
        if self._path is None:
            return
        found = [self.moments[phase] for phase in PHASES if phase in self.moments]
        lines = [json.dumps(asdict(one)) + "\n" for one in found]
        with open(self._path, "a", encoding="utf-8") as file:
            file.write("".join(lines))

    def table(self) -> str:
        """The last measured step, for a person; empty where none was."""
        if not self.moments:
            return ""
        moments = list(self.moments.values())
        lines = [f"memory of this rank in GB, step {moments[0].step + 1}"]
        lines.append(f"  {'':<14}" + "".join(f"{one.phase:>18}" for one in moments))
        for name in CATEGORIES:
            numbers = [one.categories.get(name, 0) for one in moments]
            if any(numbers):
                lines.append(_row(name, numbers))
        what = "" if moments[0].of == "gpu" else " (process)"
        for name in ("allocated", "peak", "reserved"):
            lines.append(_row(name + what, [getattr(one, name) for one in moments]))
        return "\n".join(lines) + "\n"


def _on(device: torch.device, kind: dict[int, tuple[str, int]]) -> int:
    return sum(size for where, size in kind.values() if where == device.type)


def _row(name: str, numbers: list[int]) -> str:
    return f"  {name:<20}"[:22] + "".join(f"{number / GB:>18.3f}" for number in numbers)[6:]
