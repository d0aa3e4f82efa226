"""Recipes are files for `--config`: complete, in one place, each what its name says."""

import re
from pathlib import Path
from typing import Any

import pytest

from flamingo.models.flamingo.options import Train
from flamingo.recipes.catalogue import (
    BASELINE,
    NAMES,
    copy_recipes,
    difference,
    options_of,
    recipe_path,
    title,
)
from mmdata.cli.config_file import read_changed
from mmdata.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
COURSE = NAMES[: NAMES.index("fsdp") + 1]
OPENFLAMINGO = NAMES[NAMES.index("fsdp") + 1 :]
SMALL = {"batch_size_mmc4": 8, "batch_size_laion": 16}
EIGHTH = {"batch_size_mmc4": 4, "batch_size_laion": 8, "nproc_per_node": "8"}
#: Recipe -> all that it changes of the baseline.
CHANGES: dict[str, dict[str, Any]] = {
    "baseline": {},
    "smaller-batch": SMALL | {"learning_rate": 5e-5},
    "accumulation": SMALL | {"gradient_accumulation_steps": 4},
    "bf16": {"precision": "bf16"},
    "mixed": {"precision": "bf16-mixed"},
    "sgd": {"optimizer": "sgd", "learning_rate": 1e-2},
    "8-bit": {"optimizer": "adamw8bit"},
    "checkpointing": {"gradient_checkpointing": True},
    "offload": {"cpu_offload": "optimizer"},
    "lora": {"lm_adapter": "lora"},
    "qlora": {"lm_adapter": "qlora"},
    "ddp": EIGHTH | {"parallel": "ddp"},
    "fsdp": EIGHTH | {"parallel": "fsdp"},
}
#: Model -> language model, every how many blocks, precision, parallel: as published.
PUBLISHED = {
    "openflamingo-3b": ("anas-awadalla/mpt-1b-redpajama-200b", 1, "fp32", "ddp"),
    "openflamingo-3b-instruct": ("anas-awadalla/mpt-1b-redpajama-200b-dolly", 1, "fp32", "ddp"),
    "openflamingo-4b": ("togethercomputer/RedPajama-INCITE-Base-3B-v1", 2, "fp32", "fsdp"),
    "openflamingo-4b-instruct": (
        *("togethercomputer/RedPajama-INCITE-Instruct-3B-v1", 2, "fp32", "fsdp"),
    ),
    "openflamingo-9b": ("anas-awadalla/mpt-7b", 4, "amp_bf16", "ddp"),
}


def values(name: str) -> dict[str, Any]:
    return read_changed(str(recipe_path(name)), [])


def test_the_files_are_the_recipes_and_lie_in_one_place() -> None:
    shown = ROOT / "examples" / "recipes"
    assert sorted(path.stem for path in shown.glob("*.yaml")) == sorted(NAMES)
    for name in NAMES:
        assert (shown / f"{name}.yaml").samefile(recipe_path(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_a_run_but_for_data_and_a_name(name: str) -> None:
    given = values(name)
    assert {"run_name", "mmc4_shards", "laion_shards"}.isdisjoint(given)
    run = Train(**given, run_name="r", mmc4_shards="m", laion_shards="l")
    assert run.vision_encoder_path == "ViT-L-14"
    assert title(name).endswith((".", ")"))


@pytest.mark.parametrize("name", COURSE)
def test_a_recipe_of_the_course_changes_what_it_says_of_the_baseline(name: str) -> None:
    assert values(name) == values("baseline") | CHANGES[name]


@pytest.mark.parametrize("name", [name for name in NAMES if name != BASELINE])
def test_the_first_comment_says_all_that_a_recipe_changes_of_its_neighbour(name: str) -> None:
    told = title(name)
    found = re.match(r"As ([a-z0-9-]+), but ", told)
    assert found is not None, told
    assert told.startswith(f"{found[0]}{difference(name, found[1])}. ")


def test_a_difference_names_what_is_changed_added_and_left_out() -> None:
    assert difference("accumulation") == (
        "batch-size-mmc4: 8, batch-size-laion: 16, gradient-accumulation-steps: 4"
    )
    assert difference("baseline", "ddp") == (
        "batch-size-mmc4: 32, batch-size-laion: 64, without parallel, without nproc-per-node"
    )
    assert difference(BASELINE) == ""


@pytest.mark.parametrize("name", NAMES)
def test_options_are_read_as_a_config_is(name: str) -> None:
    typed = [f"{option}={value}" for option, value in options_of(name).items()]
    assert read_changed(str(recipe_path(BASELINE)), typed) == values(BASELINE) | values(name)


def test_accumulation_takes_the_step_of_the_baseline() -> None:
    given, plain = values("accumulation"), values(BASELINE)
    for size in ("batch_size_mmc4", "batch_size_laion"):
        assert given[size] * given["gradient_accumulation_steps"] == plain[size]


def test_the_docs_show_the_same_changes() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")] for line in page.splitlines()]
    shown = {row[1].strip("`"): row[-2] for row in cells if len(row) > 3 and row[1][:1] == "`"}
    assert {name: change.replace("`", "") for name, change in shown.items()} == {
        name: difference(name) for name in shown
    }
    assert set(COURSE) <= shown.keys()


def test_every_recipe_of_the_course_is_held_to_its_changes() -> None:
    assert set(CHANGES) == set(COURSE)
    assert set(PUBLISHED) == set(OPENFLAMINGO)


@pytest.mark.parametrize("name", OPENFLAMINGO)
def test_openflamingo_is_trained_as_published(name: str) -> None:
    given = values(name)
    lm, every_n, precision, parallel = PUBLISHED[name]
    assert (given["lm_path"], given["cross_attn_every_n_layers"]) == (lm, every_n)
    assert (given.get("precision", "fp32"), given["parallel"]) == (precision, parallel)
    assert (given["batch_size_mmc4"], given["batch_size_laion"]) == (32, 64)
    assert (given["loss_multiplier_mmc4"], given["loss_multiplier_laion"]) == (1.0, 0.2)
    assert (given["learning_rate"], given["warmup_steps"]) == (1e-4, 1875)
    assert (given["weight_decay"], given["mmc4_textsim_threshold"]) == (0.1, 0.24)
    documents = given["train_num_samples_mmc4"] * given["num_epochs"]
    pairs = given["train_num_samples_laion"] * given["num_epochs"]
    assert (documents, pairs) == (60_000_000, 120_000_000)
    assert int(given["nproc_per_node"]) * int(given["nnodes"]) == 64


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"recipe lora-2: expected one of baseline, smaller-batch"):
        recipe_path("lora-2")


def test_copies_are_the_files_and_overwrite_nothing(tmp_path: Path) -> None:
    (written,) = copy_recipes(["ddp"], str(tmp_path / "new"))
    assert written.read_bytes() == recipe_path("ddp").read_bytes()
    written.write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=r"ddp\.yaml: is there already"):
        copy_recipes(["fsdp", "ddp"], str(tmp_path / "new"))
    assert written.read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "new" / "fsdp.yaml").exists()
