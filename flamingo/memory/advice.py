"""Which options to change when memory is short, cheapest first, by what there is too much of.

Cheap is what costs neither time nor quality, then what costs time, then what changes the training.
One table; an option that this version does not have, or that is in use already, is left out.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

from flamingo.train.options.train import Train

_NUM_TOLD = 2


@dataclass(frozen=True, slots=True)
class Lever:
    """A change of options.

    Attributes:
        families: kinds of memory that it makes less of.
        option: field of the options that it needs.
        applies: whether it is still to be had; (options, ranks).
        text: what to do.
    """

    families: tuple[str, ...]
    option: str
    applies: Callable[[Train, int], bool]
    text: str


def _value(options: Train, name: str, default: object) -> object:
    return getattr(options, name, default)


_MODEL = ("parameters", "gradients", "optimizer")
LEVERS = (
    Lever(
        ("activations", "other"),
        "gradient_accumulation_steps",
        lambda options, _: _can_halve(options),
        "halve --batch-size-mmc4 and --batch-size-laion and double "
        "--gradient-accumulation-steps (the same training)",
    ),
    Lever(
        ("parameters", "activations", "communication"),
        "precision",
        lambda options, _: options.precision == "fp32",
        "--precision bf16-mixed",
    ),
    Lever(
        (*_MODEL, "communication"),
        "parallel",
        lambda options, ranks: ranks > 1 and options.parallel in ("auto", "ddp"),
        "--parallel fsdp",
    ),
    Lever(
        ("activations", "other"),
        "gradient_checkpointing",
        lambda options, _: not options.gradient_checkpointing,
        "--gradient-checkpointing (a third more time)",
    ),
    Lever(
        ("optimizer",),
        "optimizer",
        lambda options, _: options.optimizer == "adamw" and options.cpu_offload is None,
        "--optimizer adamw8bit",
    ),
    Lever(
        ("optimizer", "parameters"),
        "cpu_offload",
        lambda options, _: options.cpu_offload is None and options.optimizer != "adamw8bit",
        "--cpu-offload optimizer (slower steps)",
    ),
    Lever(
        ("parameters",),
        "lm_adapter",
        lambda options, _: _value(options, "lm_adapter", "") in (None, "none", "lora"),
        "--lm-adapter qlora (the LM in 4 bits)",
    ),
    Lever(
        ("gradients", "optimizer", "parameters"),
        "cross_attn_every_n_layers",
        lambda options, _: options.cross_attn_every_n_layers < 4,
        "a larger --cross-attn-every-n-layers (another model)",
    ),
    Lever(
        ("activations", "other"),
        "mmc4_max_tokens",
        lambda options, _: True,
        "fewer --mmc4-max-tokens or --mmc4-max-num-images",
    ),
    Lever(
        (*_MODEL, "buffers", "communication", "activations", "other"),
        "nproc_per_node",
        lambda options, _: True,
        "more GPUs with --parallel fsdp",
    ),
)


def advice(options: Train, family: str, *, ranks: int) -> list[str]:
    """The two cheapest changes that make less of a kind of memory."""
    known = {column.name for column in fields(Train)}
    found = [
        lever.text
        for lever in LEVERS
        if family in lever.families and lever.option in known and lever.applies(options, ranks)
    ]
    return found[:_NUM_TOLD]


def _can_halve(options: Train) -> bool:
    return options.batch_size_mmc4 % 2 == 0 or (options.batch_size or 1) % 2 == 0
