"""What cannot be combined: one table, by which a run is refused before anything loads.

A row says which options clash, why, and what to give instead. docs/levers.md shows this table, and
that of a family's own options behind it. Whatever stands in no row has to work: a test trains with
every pair of settings that is left. The price of one table is that a new lever has to be looked at
against all others.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from flamingo.options.sections import TrainSections
from mmdata.errors import UserError


@dataclass(frozen=True, slots=True)
class Refusal:
    """A combination that is refused.

    Attributes:
        options: as they are typed.
        why: it cannot be.
        instead: what to give.
        applies: whether a run has it.
    """

    options: str
    why: str
    instead: str
    applies: Callable[[Any], bool]


def _is_sharded(options: TrainSections) -> bool:
    return options.parallel in ("fsdp", "hsdp")


def has_features(options: TrainSections) -> bool:
    """Whether features stand for the pictures of any stream."""
    of_streams = any(".features=" in one for one in options.stream_opt)
    return of_streams or bool(options.mmc4_features or options.laion_features)


REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        "--cpu-offload params without --parallel fsdp or hsdp",
        "only sharded parameters are brought to the device block by block",
        "--parallel fsdp, which one process can do as well, or --cpu-offload optimizer",
        lambda o: o.cpu_offload == "params" and not _is_sharded(o),
    ),
    Refusal(
        "--cpu-offload with --optimizer adamw8bit",
        "its state is compressed for the device's memory, and offloading takes it out of there",
        "--optimizer adamw, or leave out --cpu-offload",
        lambda o: o.cpu_offload is not None and o.optimizer == "adamw8bit",
    ),
    Refusal(
        "--cpu-offload optimizer with --optimizer sgd and no --momentum",
        "there is no state to keep elsewhere",
        "leave out --cpu-offload, or give --momentum",
        lambda o: o.cpu_offload == "optimizer" and o.optimizer == "sgd" and not o.momentum,
    ),
    Refusal(
        "--momentum without --optimizer sgd",
        "AdamW has momenta of its own",
        "leave it out, or --optimizer sgd",
        lambda o: o.momentum > 0 and o.optimizer != "sgd",
    ),
    Refusal(
        "--checkpoint-policy without --gradient-checkpointing",
        "nothing is recomputed",
        "--gradient-checkpointing too",
        lambda o: o.checkpoint_policy is not None and not o.gradient_checkpointing,
    ),
    Refusal(
        "--checkpoint-policy selective with --compile",
        "a compiled block is one piece, and its compiler decides what to keep",
        "--checkpoint-policy full, or --compile alone",
        lambda o: o.checkpoint_policy == "selective" and o.compile,
    ),
)


def check_combinations(options: Any, refusals: Iterable[Refusal] = REFUSALS) -> None:
    """Refuse what a table refuses.

    Args:
        options: of a run.
        refusals: the table; a family of models has one of its own beside the one that is for all.

    Raises:
        UserError: in one line, by the first row that applies.
    """
    for row in refusals:
        if row.applies(options):
            raise UserError(f"{row.options}: {row.why}; instead: {row.instead}")
