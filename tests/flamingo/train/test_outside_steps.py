"""A pass of the model outside a training step leaves nothing behind: what is saved is as without.

Validation, the preflight, text that is written, losses with and without pictures, telemetry's
counts: around the steps of a sharded run, with each setting of each lever, then a save, a resume,
and an export. The tests on two ranks go through all rows in one launch.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.multiprocessing import start_processes

from flamingo.inference.export import export
from flamingo.inference.export_options import Export
from flamingo.models.flamingo.options import Train
from flamingo.modules.checkpoint_files import read_weights
from flamingo.train.checkpoint.checkpoint import read_state
from mmdata.cli.main import main
from mmdata.errors import UserError
from tests.flamingo.conftest import World
from tests.flamingo.launch.test_run_on_ranks import arguments_of
from tests.flamingo.parallel.test_wrap import make_lm

from .covering import Setting, covering_rows, pairs, settings
from .outside_rank import STEPS, Case, run_outside

Options = Callable[..., Train]
#: `passes` is not an option of a run, but what `outside_rank` does behind its steps. Two settings
#: hold all of the passes: one that left something behind would show in either company.
OUTSIDE: list[Setting] = [
    {"val_every": 1, "preflight": "on"},
    {"passes": "by hand"},
]
LEVERS: list[list[Setting]] = [
    OUTSIDE,
    [{"parallel": "fsdp"}, {"parallel": "hsdp", "shard_ranks": 1}],
    [{}, {"optimizer": "adamw8bit"}, {"optimizer": "sgd", "momentum": 0.9}],
    [{}, {"cpu_offload": "optimizer"}, {"cpu_offload": "params"}],
    [{}, {"lm_adapter": "lora"}, {"lm_adapter": "qlora"}],
    [{}, {"async_checkpoint": False}],
    [{}, {"pack": True, "pack_tokens": 32}],
    [{}, {"precision": "bf16-mixed", "gradient_checkpointing": True}],
]
#: A resume rounds 8-bit moments to codes once more.
TOLERANCE = {"adamw8bit": 2e-3}


def is_taken(chosen: Setting) -> bool:
    given = {name: value for name, value in chosen.items() if name not in ("passes", "val_every")}
    try:
        Train(lm_path="lm", run_name="run", mmc4_shards="shards", **given)
    except UserError:
        return False
    return True


@pytest.mark.matrix
def test_a_sharded_run_that_is_validated_is_saved_resumed_and_exported(
    run_options: Options, world: World
) -> None:
    changes = {"parallel": "fsdp", "val_stream": (f"v={world.captions}",), "workers": 0}
    options = run_options("run", max_steps=1, **changes)
    assert main(["train", *arguments_of(options)]) == 0
    folder = Path(options.run_name)
    lines = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1]
    assert main(["train", *arguments_of(run_options("run", max_steps=2, **changes))]) == 0
    state = read_state(str(folder / "checkpoints" / "step-00000002"))
    assert "media_tokens.input_rows" in state.trained
    assert main(["export", options.run_name, "--format", "safetensors", "--offline"]) == 0
    assert read_weights(folder / "exports/safetensors-step-00000002/model.safetensors")


@pytest.fixture(scope="module")
def cases(world: World, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """Every row, trained on two ranks."""
    folder = tmp_path_factory.mktemp("outside")
    make_lm(folder / "untied")
    make_lm(folder / "tied")
    common = {
        "mmc4_shards": str(world.shards),
        "vision_encoder_path": str(world.clip),
        "mmc4_min_image_bytes": 0,
        "mmc4_max_tokens": 32,
        "mmc4_max_num_images": 2,
        "batch_size_mmc4": 1,
        "learning_rate": 0.01,
        "max_steps": STEPS,
        "workers": 0,
        "telemetry_seconds": 0.0,
        "offline": True,
        "device": "cpu",
    }
    made = []
    for number, row in enumerate(covering_rows(LEVERS, is_taken, with_lever=0)):
        chosen = settings(LEVERS, row)
        passes = chosen.pop("passes", "")
        asked = {name: chosen.pop(name) for name in ("val_every", "preflight") if name in chosen}
        if "val_every" in asked:
            asked["val_stream"] = (f"held={world.captions}",)
        lm = folder / ("tied" if number % 2 else "untied")
        options = Train(lm_path=str(lm), run_name=f"{folder}/{number}", **common | chosen)
        made.append(Case(options, asked, passes))
    start_processes(run_outside, args=(2, str(folder), made), nprocs=2, start_method="forkserver")
    return made


@pytest.mark.slow
@pytest.mark.matrix
class TestOnTwoRanks:
    def test_every_pass_is_made_with_every_setting(self) -> None:
        rows = covering_rows(LEVERS, is_taken, with_lever=0)
        met = {pair for row in rows for pair in pairs(row)}
        for outside in range(len(OUTSIDE)):
            for lever in range(1, len(LEVERS)):
                for place in range(len(LEVERS[lever])):
                    assert (0, outside, lever, place) in met

    def test_what_is_exported_is_what_a_run_without_such_passes_saves(
        self, cases: list[Case]
    ) -> None:
        for case in cases:
            options = case.options
            step = f"checkpoints/step-{STEPS:08d}"
            resumed = Path(case.resumed.run_name) / step
            state = read_state(str(Path(options.run_name) / step))
            assert state.trained == read_state(str(resumed)).trained
            written = export(Export(run=options.run_name, format="safetensors", offline=True))
            found = read_weights(Path(written.folder) / "model.safetensors")
            expected = read_weights(resumed)
            assert found.keys() == expected.keys()
            gates = [value for name, value in found.items() if name.endswith("ff_gate")]
            assert all(gate.item() != 0.0 for gate in gates)  # which all begin at 0
            tolerance = TOLERANCE.get(options.optimizer, 0.0)
            for name, value in expected.items():
                torch.testing.assert_close(
                    found[name], value, atol=tolerance, rtol=0, msg=f"{case}: {name}"
                )
