"""What cannot be combined: one table, by which a run is refused before anything loads.

A row says which options clash, why, and what to give instead. docs/levers.md shows the table as it
is here. Whatever stands in no row has to work: a test trains with every pair of settings that is
left. The price of one table is that a new lever has to be looked at against all others.
"""

from collections.abc import Callable
from dataclasses import dataclass

from flamingo.train.options.sections import TrainSections
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
    applies: Callable[[TrainSections], bool]


def _is_sharded(options: TrainSections) -> bool:
    return options.parallel in ("fsdp", "hsdp")


def _has_features(options: TrainSections) -> bool:
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
    Refusal(
        "--lm-adapter with an LM that --freeze lets train",
        "adapters are there to keep the LM as it is",
        "--freeze lm or vision,lm, or leave out --lm-adapter",
        lambda o: o.lm_adapter != "none" and "lm" not in o.freeze,
    ),
    Refusal(
        "--cpu-offload params with --lm-adapter qlora",
        "matrices of 4 bits stay on the device, where they are small",
        "--cpu-offload optimizer, or --lm-adapter lora",
        lambda o: o.cpu_offload == "params" and o.lm_adapter == "qlora",
    ),
    Refusal(
        "--freeze lm or none with precomputed features",
        "a vision tower that trains gives other features after every step",
        "--freeze vision or vision,lm, or streams of pictures",
        lambda o: "vision" not in o.freeze and _has_features(o),
    ),
)


def check_combinations(options: TrainSections) -> None:
    """Refuse what the table refuses.

    Raises:
        UserError: in one line, by the first row that applies.
    """
    for row in REFUSALS:
        if row.applies(options):
            raise UserError(f"{row.options}: {row.why}; instead: {row.instead}")
