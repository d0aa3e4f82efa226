"""How long a run is, and the learning rate at each of its optimizer steps.

Everything counts optimizer steps, never micro-batches: with accumulation a schedule that counts
those would end at 1/k of its curve.
"""

import math

from flamingo.options.optimisation import Schedule
from flamingo.options.run import RunOptions
from flamingo.options.streams import training_streams
from mmdata.errors import UserError


def run_steps(options: RunOptions, batch_sizes: dict[str, int]) -> int:
    """Optimizer steps of the run: --max-steps, or epochs x ceil(samples / global batch).

    Args:
        options: of the run.
        batch_sizes: samples of each stream in a global batch, by the stream's name.

    Raises:
        UserError: no length is given, the streams disagree, or the warm-up is longer.
    """
    steps = options.max_steps or epoch_steps(options, batch_sizes) * options.num_epochs
    if options.warmup_steps >= steps and options.warmup_steps:
        raise UserError(
            f"--warmup-steps {options.warmup_steps}: the run has {steps} optimizer steps and would "
            "never reach its learning rate; expected fewer"
        )
    return steps


def epoch_steps(options: RunOptions, batch_sizes: dict[str, int]) -> int:
    """Optimizer steps of an epoch, which is the samples given for the streams.

    Raises:
        UserError: no number of samples is given, or the streams disagree.
    """
    samples = {one.name: one.train_num_samples for one in training_streams(options)}
    steps = {}
    for name, batch in batch_sizes.items():
        number = samples[name]
        if number is not None:
            steps[name] = math.ceil(number / batch)
    if not steps:
        flags = " or ".join(f"--train-num-samples-{name}" for name in batch_sizes)
        raise UserError(f"how long is the run? give --max-steps, or {flags} and --num-epochs")
    if len(set(steps.values())) > 1:
        told = ", ".join(f"{name}: {number}" for name, number in steps.items())
        raise UserError(f"the streams' epochs differ in steps ({told}); give --max-steps")
    return next(iter(steps.values()))


def learning_rate_factor(
    step: int, *, schedule: Schedule, warmup_steps: int, total_steps: int
) -> float:
    """What the learning rate is multiplied with at the optimizer step (from 0).

    Linear from 0 over the warm-up, then constant, linear to 0, or half a cosine to 0; the same
    values as transformers' schedules (the first step of a warm-up has a rate of 0).
    """
    if step < warmup_steps:
        return step / max(1, warmup_steps)
    if schedule == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    if schedule == "linear":
        return max(0.0, 1.0 - progress)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
