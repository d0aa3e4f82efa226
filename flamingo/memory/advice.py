"""Which options to change when memory is short, cheapest first, by what there is too much of.

Cheap is what costs neither time nor quality, then what costs time, then what changes the training.
What a model family has to offer of its own stands between the last two.
"""

from flamingo.models.family import Lever
from flamingo.models.registry import find_family
from flamingo.options.run import RunOptions

_NUM_TOLD = 2
_MODEL = ("parameters", "gradients", "optimizer")
LEVERS = (
    Lever(
        ("activations", "other"),
        lambda options, _: _can_halve(options),
        "halve --batch-size-mmc4 and --batch-size-laion and double "
        "--gradient-accumulation-steps (the same training)",
    ),
    Lever(
        ("parameters", "activations", "communication"),
        lambda options, _: options.precision in (None, "fp32"),
        "--precision bf16-mixed",
    ),
    Lever(
        (*_MODEL, "communication"),
        lambda options, ranks: ranks > 1 and options.parallel in ("auto", "ddp"),
        "--parallel fsdp",
    ),
    Lever(
        ("activations", "other"),
        lambda options, _: not options.gradient_checkpointing,
        "--gradient-checkpointing (a third more time)",
    ),
    Lever(
        ("optimizer",),
        lambda options, _: options.optimizer == "adamw" and options.cpu_offload is None,
        "--optimizer adamw8bit",
    ),
    Lever(
        ("optimizer", "parameters"),
        lambda options, _: options.cpu_offload is None and options.optimizer != "adamw8bit",
        "--cpu-offload optimizer (slower steps)",
    ),
)
#: What is left when all else is done.
LAST_LEVERS = (
    Lever(
        ("activations", "other"),
        lambda *_: True,
        "fewer --mmc4-max-tokens or --mmc4-max-num-images",
    ),
    Lever(
        (*_MODEL, "buffers", "communication", "activations", "other"),
        lambda *_: True,
        "more GPUs with --parallel fsdp",
    ),
)


def advice(options: RunOptions, kind: str, *, ranks: int) -> list[str]:
    """The two cheapest changes that make less of a kind of memory.

    Args:
        options: of the run.
        kind: of memory, as `Lever.kinds` names it.
        ranks: of the run.
    """
    levers = (*LEVERS, *find_family(options.family).levers, *LAST_LEVERS)
    found = [one.text for one in levers if kind in one.kinds and one.applies(options, ranks)]
    return found[:_NUM_TOLD]


def _can_halve(options: RunOptions) -> bool:
    return options.batch_size_mmc4 % 2 == 0 or (options.batch_size or 1) % 2 == 0
