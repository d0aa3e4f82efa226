"""Two recipes, trained for some steps and shown side by side."""

from pathlib import Path

import pytest

from flamingo.recipes.compare import (
    ComparedRunError,
    RunOutcome,
    compare_recipes,
    table,
    write_config,
)
from flamingo.telemetry.losses import MeanLoss
from mmdata.cli.config_file import read_changed
from mmdata.cli.main import main
from mmdata.errors import UserError
from tests.flamingo.conftest import ROOT, World


def changes(world: World) -> list[str]:
    return [
        f"lm-path={world.lm}",
        f"vision-encoder-path={world.clip}",
        f"mmc4-shards={world.shards}",
        *("batch-size-mmc4=2", "batch-size-laion=2", "mmc4-max-tokens=32"),
        *("mmc4-min-image-bytes=0", "device=cpu", "offline=true"),
    ]


@pytest.mark.slow
@pytest.mark.matrix
def test_two_recipes_are_trained_and_shown_side_by_side(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tmp_path / "compared"
    arguments = ["recipes", "--compare", "baseline", "sgd", "--steps", "2"]
    given = [part for change in changes(world) for part in ("--set", change)]
    assert main([*arguments, "--run-name", str(folder), *given]) == 0
    shown = capfd.readouterr().out.splitlines()
    rows = {line[:34].strip(): line[34:].split() for line in shown if line}
    assert rows["steps"] == ["2", "2"]
    assert all(float(cell) > 0 for cell in rows["seconds of a step (median)"])
    baseline, sgd = rows["memory: optimizer"][0::2]
    assert float(baseline) > 0
    assert float(sgd) == 0
    (parameters,) = {rows["memory: parameters"][0], rows["memory: parameters"][2]}
    assert float(parameters) > 1
    first = rows["loss: mmc4, first -> last 1 step"]
    assert first[0] == first[3]  # the same model and the same samples
    with pytest.raises(UserError, match="baseline: a run is there already"):
        compare_recipes(
            ("baseline", "mixed"), read_changed, changes(world), folder=str(folder), steps=2
        )


@pytest.mark.slow
@pytest.mark.matrix
def test_a_run_that_fails_ends_the_comparison(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    right = [change for change in changes(world) if not change.startswith("mmc4-shards=")]
    wrong = [*right, f"mmc4-shards={tmp_path / 'nothing'}"]
    with pytest.raises(ComparedRunError, match="recipe mixed: the run ended with exit code 2"):
        compare_recipes(("mixed", "sgd"), read_changed, wrong, folder=str(tmp_path / "c"), steps=2)
    assert "nothing" in capfd.readouterr().err


def test_a_run_is_the_recipe_of_so_many_steps_in_its_own_folder(
    world: World, tmp_path: Path
) -> None:
    path = write_config("mixed", read_changed, changes(world), folder=tmp_path, steps=5)
    written = read_changed(str(path), [])
    recipe = read_changed(str(ROOT / "examples/recipes/mixed.yaml"), changes(world))
    own = {"run_name": str(tmp_path / "mixed"), "max_steps": 5, "warmup_steps": 0}
    assert written == recipe | own


def test_a_recipe_is_not_compared_with_itself() -> None:
    with pytest.raises(UserError, match="expected two different recipes"):
        compare_recipes(("sgd", "sgd"), read_changed, [], folder="c", steps=2)


def test_what_only_one_run_has_is_told_of_both() -> None:
    fell = {"mmc4": (MeanLoss(2.0, 1, 5), MeanLoss(1.0, 16, 20))}
    one = RunOutcome("a", 20, 0.5, 8.0, fell, {"parameters": 3_000_000}, 5, "gpu")
    stayed = {"laion": (MeanLoss(2.0, 1, 5), MeanLoss(1.5, 16, 20))}
    other = RunOutcome("b", 20, 1.0, 4.0, stayed, {"x": 2 * 10**9}, 5, "gpu")
    rows = {line[:34].strip(): line[34:].split("  ") for line in table([one, other]).splitlines()}
    told = {name: [cell.strip() for cell in cells if cell.strip()] for name, cells in rows.items()}
    assert told["memory: parameters"] == ["3.00 MB", "0.00 MB"]
    assert told["memory: x"] == ["0.00 MB", "2.00 GB"]
    assert told["loss: mmc4, first -> last 5 steps"] == ["2.0000 -> 1.0000", "- -> -"]
