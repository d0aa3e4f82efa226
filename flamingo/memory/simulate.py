"""A training pass of the real model on tensors without values, to see what memory it would take.

The model's own code runs forward and backward under torch's fake tensors: every block, every hook,
checkpointing and autocast as in a run, in about a second for nine billion parameters and without
memory for any. So nothing has to be said here about what a block keeps for its backward pass.

The kernels chosen are those of the device. Where an estimate for a GPU is made without one, they
are the CPU's: its attention keeps what a GPU's does, but autocast there computes norms in fp32
where an LM or a tower trains.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from flamingo.data.merge import merge_batches
from flamingo.memory.live import LiveMemory, labelled
from flamingo.models.family import Shape, TrainableModel
from flamingo.modules.meta import materialise
from flamingo.modules.quantised import is_quantised
from flamingo.options.run import RunOptions
from flamingo.parallel.world import World
from flamingo.parallel.wrap import Wrapped
from flamingo.train.loop import Trainer

BATCH = "batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """Memory of one micro-batch beyond parameters, optimizer and communication.

    Attributes:
        shapes: of the batch, by stream.
        kept: bytes that the forward pass leaves for the backward pass, by part of the model.
        peak: bytes at the largest, by part; gradients as far as they are there by then.
        peak_without: bytes at the largest, gradients left out: for ranks that hold these all along.
    """

    shapes: tuple[Shape, ...]
    kept: dict[str, int]
    peak: dict[str, int]
    peak_without: dict[str, int]


def _trainer(model: TrainableModel, options: RunOptions, device: torch.device) -> Trainer:
    unused = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=1.0)
    return Trainer(
        wrapped=Wrapped(model, model),
        optimizer=unused,
        loaders=[],
        options=options,
        total_steps=1,
        world=World(device=device),
    )


class Simulation:
    """A model that runs without values.

    Its parameters are on the meta device when it comes, and fake tensors of the device afterwards.
    """

    def __init__(self, model: TrainableModel, options: RunOptions, device: torch.device) -> None:
        """Args:
        model: to run.
        options: of the run.
        device: whose kernels are meant.
        """
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        with self._fake:
            materialise(model, device)
            _complete_quantised(model, device)
        if options.pack:
            model.allow_packing(tries=False)
        self._trainer = _trainer(model, options, device)

    def run(self, *shapes: Shape) -> Pass:
        """A pass that begins without gradients, of one stream or of several together."""
        model = self._trainer.model
        live = LiveMemory()
        with labelled(live, model):
            live.ignore([*model.parameters(), *model.buffers()])
            runner = _FakeRunner(model, self._fake, live)
            batch = merge_batches([model.largest_batch(one) for one in shapes])
            loss = self._trainer.pass_loss(runner, batch)
            kept = _shown(live.now)
            with self._fake, live:
                loss.sum().backward()
        model.zero_grad(set_to_none=True)
        return Pass(
            shapes=shapes, kept=kept, peak=_shown(live.peak), peak_without=_shown(live.peak_without)
        )


def _complete_quantised(model: nn.Module, device: torch.device) -> None:
    """Matrices in NF4 are of several parts, of which some (what is not cut) are still on meta."""
    for module in model.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            if not is_quantised(value):
                continue
            matrix: Any = value
            names, context = matrix.__tensor_flatten__()
            parts = {one: torch.empty_like(getattr(matrix, one), device=device) for one in names}
            whole = type(matrix.data).__tensor_unflatten__(
                parts, context, matrix.shape, matrix.stride()
            )
            module._parameters[name] = nn.Parameter(whole, requires_grad=False)


def _shown(counts: Counter[str]) -> dict[str, int]:
    return {label: number for label, number in counts.items() if number}


class _FakeRunner(nn.Module):
    """A model that is called with real arguments and runs without values."""

    def __init__(self, model: TrainableModel, fake: FakeTensorMode, live: LiveMemory) -> None:
        super().__init__()
        self._inside = (model, fake, live)  # a tuple, so as not to be a part of this one

    def forward(self, **arguments: Any) -> Any:
        model, fake, live = self._inside
        with fake, live:
            return model(**{name: self._fake(one) for name, one in arguments.items()})

    def _fake(self, argument: Any) -> Any:
        _, fake, live = self._inside
        if not isinstance(argument, Tensor):
            return argument
        found = fake.from_tensor(argument)
        live.see(found, BATCH)
        return found
