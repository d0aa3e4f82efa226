"""Every pair of settings that is not refused trains, and computes what the plain run computes.

The covering array is made from the table of refusals itself: the fewest runs that a greedy choice
finds in which each pair of settings of two levers is met. Twelve named combinations train on
two ranks, in one launch, and agree with one process.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flamingo.launch.run import train
from flamingo.models.flamingo.checkpoint import frozen_parts
from flamingo.models.flamingo.options import Train
from flamingo.modules.checkpoint_files import read_weights
from flamingo.parallel.world import World
from flamingo.telemetry.jsonl import read_log
from flamingo.telemetry.names import METRICS_NAME
from mmdata.errors import UserError
from tests.flamingo.conftest import World as Folders
from tests.flamingo.parallel.rank_case import Case, train_case
from tests.flamingo.parallel.test_wrap import make_lm

from .covering import Setting, covering_rows, pairs, settings
from .eager import without_compiler
from .levers_rank import run_levers

pytestmark = [pytest.mark.slow, pytest.mark.matrix]

#: Each lever's settings; the first is the plain one.
LEVERS: list[list[Setting]] = [
    [{"precision": name} for name in ("fp32", "bf16-mixed", "bf16", "fp16-mixed")],
    [{}, {"optimizer": "adamw8bit"}, {"optimizer": "sgd", "momentum": 0.9}],
    [{}, {"cpu_offload": "optimizer"}, {"cpu_offload": "params"}],
    [
        {},
        {"gradient_checkpointing": True},
        {"gradient_checkpointing": True, "checkpoint_policy": "selective"},
    ],
    [{"freeze": name} for name in ("vision,lm", "vision", "lm", "none")],
    [{}, {"compile": True}],
    [{"batch_size_mmc4": 2}, {"batch_size_mmc4": 1, "gradient_accumulation_steps": 2}],
    [{}, {"parallel": "fsdp"}],
    [{}, {"vision_chunk": 1}],
    [{}, {"pack": True, "pack_tokens": 32}],
    [{}, {"lm_adapter": "lora"}, {"lm_adapter": "qlora"}],
]
STEPS = 2
#: Of losses against those in fp32; bf16 has three digits.
TOLERANCE = {"fp32": 1e-4, "bf16-mixed": 0.02, "bf16": 0.05, "fp16-mixed": 0.01}

OTHERS = ("pack", "pack_tokens", "lm_adapter")


def is_taken(chosen: Setting) -> bool:
    try:
        Train(lm_path="lm", run_name="run", mmc4_shards="shards", **chosen)
    except UserError:
        return False
    return True


def is_compiled(chosen: Setting) -> int:
    """Tracing takes longer than the training."""
    return int(chosen.get("compile", False))


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm") / "untied"
    make_lm(folder)
    return folder


def losses(options: Train) -> list[float]:
    return [line["losses"]["mmc4"] for line in read_log(f"{options.run_name}/{METRICS_NAME}")]


@pytest.fixture
def small(run_options: Callable[..., Train], lm: Path) -> Callable[..., Train]:
    def make(name: str, **changes: Any) -> Train:
        plain = {"lm_path": str(lm), "mmc4_max_tokens": 32, "mmc4_max_num_images": 2, "workers": 0}
        plain |= {"max_steps": STEPS, "learning_rate": 0.01, "batch_size_mmc4": 2}
        return run_options(name, **plain | changes)

    return make


def test_every_pair_of_settings_trains_as_the_plain_run(small: Callable[..., Train]) -> None:
    rows = covering_rows(LEVERS, is_taken, is_compiled)
    assert {tuple(pair) for row in rows for pair in pairs(row)} >= {
        (0, 2, 1, 1),  # bf16 with adamw8bit
        (2, 2, 4, 3),  # parameters in host memory, and all of them train
        (3, 1, 5, 1),  # compiled blocks, recomputed
    }
    plain: dict[str, list[float]] = {}
    wrong = []
    with without_compiler():
        for number, row in enumerate(rows):
            chosen = settings(LEVERS, row)
            # Packed sequences hold other samples, and matrices of 4 bits are others.
            others = {name: chosen[name] for name in OTHERS if name in chosen}
            key = repr(others)
            if key not in plain:
                options = small(f"plain{len(plain)}", **others)
                train(options)
                plain[key] = losses(options)
            wrong += _differences(small(f"row{number}", **chosen), plain[key], chosen)
    assert wrong == []


def loss_differences(
    options: Train, found: list[float], plain: list[float], least: float = 0.0
) -> list[str]:
    """What is not as it should be in a run's losses.

    Args:
        options: of the run.
        found: its losses.
        plain: of the plain run in fp32.
        least: of the tolerance, for devices whose fp32 is not a CPU's.
    """
    tolerance = max(least, TOLERANCE[options.precision])
    wrong = []
    if abs(found[0] - plain[0]) > tolerance:
        wrong.append(f"first loss {found[0]}, not {plain[0]}")
    same_step = options.optimizer == "adamw" and options.freeze == "vision,lm"
    if same_step and abs(found[1] - plain[1]) > 10 * tolerance:
        wrong.append(f"second loss {found[1]}, not {plain[1]}")
    return wrong


def _differences(options: Train, plain: list[float], chosen: Setting) -> list[str]:
    """Train, and say what is not as it should be."""
    result = train(options)
    found = losses(options)
    wrong = [f"{chosen}: {one}" for one in loss_differences(options, found, plain)]
    if result.skipped_steps or not all(map(math.isfinite, found)):
        wrong.append(f"{chosen}: {found}, {result.skipped_steps} skipped")
    weights = read_weights(str(result.checkpoint))
    gates = [value for name, value in weights.items() if name.endswith("ff_gate")]
    if not all(gate.item() != 0.0 for gate in gates):  # which all begin at 0
        wrong.append(f"{chosen}: nothing moved")
    if set(frozen_parts(weights)) != set(options.freeze.split(",")) - {"none"}:
        wrong.append(
            f"{chosen}: the checkpoint has a part that is frozen, or lacks one that is not"
        )
    return wrong


#: What a person might choose, with how it is spread over two ranks.
NAMED: dict[str, tuple[str, Setting]] = {
    "mixed": ("ddp", {"precision": "bf16-mixed"}),
    "mixed-recomputed": (
        "fsdp",
        {"precision": "bf16-mixed", "gradient_checkpointing": True},
    ),
    "pure-bf16": ("fsdp", {"precision": "bf16"}),
    "fp16": ("fsdp", {"precision": "fp16-mixed"}),
    "fp16-offloaded": ("ddp", {"precision": "fp16-mixed", "cpu_offload": "optimizer"}),
    "eight-bit": ("fsdp", {"optimizer": "adamw8bit", "precision": "bf16-mixed"}),
    "params-offloaded": ("fsdp", {"cpu_offload": "params", "precision": "bf16-mixed"}),
    "optimizer-offloaded": ("fsdp", {"cpu_offload": "optimizer"}),
    "all-trains": ("ddp", {"freeze": "none"}),
    "all-trains-sharded": (
        "fsdp",
        {"freeze": "none", "gradient_checkpointing": True, "cpu_offload": "params"},
    ),
    "selective": (
        "fsdp",
        {"gradient_checkpointing": True, "checkpoint_policy": "selective", "freeze": "vision"},
    ),
    "compiled": ("fsdp", {"compile": True, "gradient_checkpointing": True}),
}

#: Levers that change the numbers.
NUMBERS = ("precision", "optimizer", "freeze")
RANK_STEPS = 2


@pytest.fixture(scope="module")
def on_two_ranks(
    world: Folders, lm: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """What two ranks found, and one process, by the combination's name."""
    folder = tmp_path_factory.mktemp("levers")
    common = {
        "mmc4_shards": str(world.shards),
        "vision_encoder_path": str(world.clip),
        "lm_path": str(lm),
        "run_name": str(folder),
        "mmc4_min_image_bytes": 0,
        "mmc4_max_tokens": 32,
        "mmc4_max_num_images": 2,
        "batch_size_mmc4": 1,
        "learning_rate": 0.01,
        "workers": 0,
        "offline": True,
        "device": "cpu",
    }
    cases = [
        Case(name, way, common | {"parallel": way} | chosen, steps=RANK_STEPS, is_double=False)
        for name, (way, chosen) in NAMED.items()
    ]
    torch.multiprocessing.spawn(run_levers, args=(2, str(folder), cases), nprocs=2)
    alone: dict[str, dict[str, Any]] = {}
    found = {}
    with without_compiler():
        for case in cases:
            # How it is computed, and where it lies, is to make no difference.
            numbers = {name: case.options[name] for name in NUMBERS if name in case.options}
            key = repr(numbers)
            if key not in alone:
                one = Case(case.name, "", common | numbers, steps=RANK_STEPS, is_double=False)
                alone[key] = train_case(one, World())
            ranks = torch.load(folder / f"{case.name}.2.pt", weights_only=True)
            found[case.name] = (ranks, alone[key])
    return found


@pytest.mark.parametrize("name", NAMED)
def test_two_ranks_train_as_one_process_does(
    name: str, on_two_ranks: dict[str, tuple[dict[str, Any], dict[str, Any]]]
) -> None:
    ranks, alone = on_two_ranks[name]
    precision = NAMED[name][1].get("precision", "fp32")
    for found, expected in zip(ranks["losses"], alone["losses"], strict=True):
        assert found["mmc4"] == pytest.approx(expected["mmc4"], abs=TOLERANCE[precision])
    assert ranks["norms"][0] == pytest.approx(alone["norms"][0], rel=10 * TOLERANCE[precision])
    assert ranks["skipped"] == [False] * RANK_STEPS
    assert ranks["weights"].keys() == alone["weights"].keys()
    assert {one.dtype for one in ranks["weights"].values()} == {
        torch.bfloat16 if precision == "bf16" else torch.float32
    }
