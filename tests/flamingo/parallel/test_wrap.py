"""Training on 1, 2 and 4 ranks, in every way of spreading the model, is one and the same training.

A single process with four micro-batches is what the others are held against: in float64, where a
difference above rounding is a bug, and in float32. One launch a world size runs all its cases.
"""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing import start_processes
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, OPTConfig, OPTForCausalLM

from flamingo.parallel.world import World
from tests.flamingo.conftest import World as Folders
from tests.flamingo.conftest import load_example

from .rank_case import STEPS, B, Case, run_cases, train_case

pytestmark = [pytest.mark.slow, pytest.mark.matrix]
#: Forked from one process that has torch loaded: that takes most of a rank's start.
multiprocessing.get_context("forkserver").set_forkserver_preload(
    ["tests.flamingo.parallel.rank_case"]
)
TWIST_STEPS = 4
#: (world size, way of spreading, language model), in float64.
DOUBLE = [
    (2, "ddp", "untied"),
    (2, "fsdp", "tied"),
    (4, "fsdp", "untied"),
    (4, "hsdp", "tied"),
]
FLOAT = [(2, "ddp", "untied"), (4, "fsdp", "untied")]
#: With LoRA adapters in the LM in float64, above NF4 matrices (which have no such) in float32.
ADAPTED = [
    (2, "ddp", "qlora"),
    (2, "fsdp", "lora"),
    (2, "fsdp", "qlora"),
    (4, "hsdp", "qlora"),
]
ADAPTED_STEPS = {"lora": 5, "qlora": 3}
TWISTED = [(2, "ddp"), (2, "fsdp"), (4, "hsdp")]
TWISTS = ("text", "mix", "merged", "nan")

Result = dict[str, Any]


class Runs:
    """The cases of this module: alone when asked for, on ranks in one launch a world size."""

    def __init__(self, folder: Path, captions: Path, options: dict[str, dict[str, Any]]) -> None:
        self._folder, self._captions, self._options = folder, captions, options
        self._alone: dict[str, Result] = {}
        self._launched: set[int] = set()

    def on(self, size: int, name: str) -> Result:
        if size not in self._launched:
            cases = [self._case(one) for one in self._names(size)]
            told = (size, str(self._folder), cases)
            self._launched.add(size)  # also if it fails: then all of its tests do, at once
            start_processes(run_cases, args=told, nprocs=size, start_method="forkserver")
        return torch.load(self._folder / f"{name}.{size}.pt", weights_only=True)

    def alone(self, name: str) -> Result:
        """The same with one process, whatever the way of spreading."""
        key = name.partition("-")[2]
        if key not in self._alone:
            self._alone[key] = train_case(self._case(f"none-{key}"), World())
        return self._alone[key]

    def _names(self, size: int) -> list[str]:
        names = [f"{way}-{lm}-double" for ranks, way, lm in DOUBLE if ranks == size]
        names += [f"{way}-{lm}-float" for ranks, way, lm in FLOAT if ranks == size]
        names += [f"{way}-untied-{kind}" for ranks, way, kind in ADAPTED if ranks == size]
        ways = [way for ranks, way in TWISTED if ranks == size]
        return names + [f"{way}-untied-{twist}" for way in ways for twist in TWISTS]

    def _case(self, name: str) -> Case:
        way, lm, kind = name.split("-")
        options = dict(self._options[lm])
        if kind in TWISTS:  # with a second stream, whose last pass is then the step's last
            options["laion_shards"] = str(self._captions)
        if kind in ("mix", "merged"):  # three documents, one caption: most ranks have no caption
            options |= {"mix": "mmc4=0.75,laion=0.25", "batch_size": 1}
        if kind == "merged" and way != "none":  # one process has the streams apart
            options["merge_streams"] = "on"
        if kind in ADAPTED_STEPS:
            options |= {"lm_adapter": kind, "lora_r": 4, "lora_alpha": 8.0, "learning_rate": 1e-3}
        is_twisted = kind in TWISTS
        return Case(
            name,
            way,
            options,
            steps=TWIST_STEPS if is_twisted else ADAPTED_STEPS.get(kind, STEPS),
            is_double=kind not in ("float", "qlora"),
            twist=kind if is_twisted else "",
        )


@pytest.fixture(scope="module")
def runs(world: Folders, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("ranks")
    common = {
        "mmc4_shards": str(world.shards),
        "vision_encoder_path": str(world.clip),
        "run_name": str(folder),
        "val_stream": (f"held={world.captions}",),
        "stream_opt": ("held.batch_size=5",),
        "mmc4_min_image_bytes": 0,
        "mmc4_max_tokens": 32,
        "mmc4_max_num_images": 2,
        "cross_attn_every_n_layers": 2,
        "batch_size_mmc4": 1,
        "batch_size_laion": 1,
        "workers": 0,
        "offline": True,
        "device": "cpu",
    }
    options = {}
    for name in ("tied", "untied"):
        make_lm(folder / name)
        options[name] = common | {
            "lm_path": str(folder / name),
            "train_output_rows": name == "untied",
        }
    return Runs(folder, world.captions, options)


def make_lm(folder: Path) -> None:
    """Two layers of 32 channels: an OPT, tied, or a GPT-NeoX, by the folder's name."""
    rows = load_example("make_tiny_models").make_tokenizer(folder)
    common = {"vocab_size": rows, "hidden_size": 32, "num_hidden_layers": 2}
    common |= {"num_attention_heads": 4, "max_position_embeddings": 64}
    common |= {"bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(0)
    lm: Any
    if folder.name == "tied":
        lm = OPTForCausalLM(OPTConfig(**common, ffn_dim=48, word_embed_proj_dim=32, pad_token_id=1))
    else:
        lm = GPTNeoXForCausalLM(GPTNeoXConfig(**common, intermediate_size=48))
    lm.save_pretrained(folder)


def check_equal(found: Result, alone: Result, tolerance: float) -> None:
    """Losses, norms and every trained weight, absolutely; counts and samples exactly."""
    assert found["keys"] == alone["keys"]
    assert found["counts"] == alone["counts"]
    assert found["skipped"] == alone["skipped"]
    assert found["positions"] == alone["positions"]
    for step, (losses, expected) in enumerate(zip(found["losses"], alone["losses"], strict=True)):
        for name, loss in expected.items():
            assert losses[name] == pytest.approx(loss, abs=tolerance), f"{name} of step {step}"
    assert found["norms"] == pytest.approx(alone["norms"], abs=tolerance * 10)
    assert found["weights"].keys() == alone["weights"].keys()
    assert any("media_tokens" in name for name in found["weights"])
    for name, weight in alone["weights"].items():
        torch.testing.assert_close(
            found["weights"][name],
            weight,
            atol=tolerance,
            rtol=0,
            msg=lambda m, n=name: f"{n}: {m}",
        )


@pytest.mark.parametrize(("size", "way", "lm"), DOUBLE)
def test_ten_steps_are_those_of_one_process(runs: Runs, size: int, way: str, lm: str) -> None:
    name = f"{way}-{lm}-double"
    check_equal(runs.on(size, name), runs.alone(name), 1e-9)


@pytest.mark.parametrize(("size", "way", "lm"), FLOAT)
def test_in_float32_rounding_stays_small(runs: Runs, size: int, way: str, lm: str) -> None:
    name = f"{way}-{lm}-float"
    check_equal(runs.on(size, name), runs.alone(name), 1e-5)


@pytest.mark.parametrize(("size", "way", "kind"), ADAPTED)
def test_adapters_train_as_in_one_process(runs: Runs, size: int, way: str, kind: str) -> None:
    name = f"{way}-untied-{kind}"
    alone = runs.alone(name)
    check_equal(runs.on(size, name), alone, 1e-9 if kind == "lora" else 1e-5)
    second = [weight for name, weight in alone["weights"].items() if ".lora_B." in name]
    assert len(second) == 4
    assert all(weight.abs().max() > 1e-3 for weight in second)  # they began at zero


def test_it_is_a_training(runs: Runs) -> None:
    """What is held against each other above moves, and by more than the tolerance."""
    alone = runs.alone("none-untied-double")
    first, last = alone["losses"][0], alone["losses"][-1]
    assert last["mmc4"] < first["mmc4"] - 0.01
    assert min(alone["norms"]) > 1e-3
    assert all(count["samples"] == B for count in alone["counts"])


@pytest.mark.parametrize(("size", "way"), TWISTED)
def test_a_rank_that_gets_only_text_takes_part(runs: Runs, size: int, way: str) -> None:
    name = f"{way}-untied-text"
    check_equal(runs.on(size, name), runs.alone(name), 1e-9)


@pytest.mark.parametrize(("size", "way"), TWISTED)
def test_ranks_without_samples_of_a_stream_take_part(runs: Runs, size: int, way: str) -> None:
    name = f"{way}-untied-mix"
    check_equal(runs.on(size, name), runs.alone(name), 1e-9)


@pytest.mark.parametrize(("size", "way"), TWISTED)
def test_streams_that_go_through_together_train_as_those_apart(
    runs: Runs, size: int, way: str
) -> None:
    name = f"{way}-untied-merged"
    check_equal(runs.on(size, name), runs.alone(name), 1e-9)


@pytest.mark.parametrize(("size", "way"), TWISTED)
def test_a_loss_that_is_no_number_on_one_rank_skips_the_step_on_all(
    runs: Runs, size: int, way: str
) -> None:
    found = runs.on(size, f"{way}-untied-nan")
    assert found["skipped"] == [False, True, False, False]
    assert found["moved"] == [False, True, True]
    assert found["ranks_agree"]


@pytest.mark.parametrize(("size", "way", "lm"), DOUBLE)
def test_the_loss_on_held_out_data_is_that_of_one_process(
    runs: Runs, size: int, way: str, lm: str
) -> None:
    """Twelve pairs in batches of five: on four ranks of three, on two of five and one."""
    name = f"{way}-{lm}-double"
    expected = runs.alone(name)["validation"]["held"]
    assert runs.on(size, name)["validation"]["held"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("size", [2, 4])
def test_an_error_of_one_rank_ends_all_and_is_said_once(runs: Runs, size: int) -> None:
    own = ("BrokenShardError", "a.tar is broken", 7)
    relayed = ("RelayedError", f"a.tar is broken (on rank {size - 1})", 7)
    silent = ("RelayedError", "", 7)
    first, *others = runs.on(size, "errors")
    assert first == [own, own, relayed, relayed]
    assert others == [[silent] * 4] * (size - 1)
