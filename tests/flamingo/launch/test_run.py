"""A run: reproducible, resumable, counted, and stopped early when it makes no sense."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flamingo.data.order import Position
from flamingo.launch.run import TrainResult, summary, train
from flamingo.models.flamingo.options import Train
from flamingo.modules.checkpoint_files import read_weights
from flamingo.telemetry.jsonl import read_log
from flamingo.telemetry.losses import MeanLoss
from flamingo.train.checkpoint.checkpoint import find_checkpoint, read_state
from flamingo.train.loop import NotFiniteError
from mmdata.errors import EXIT_REQUEUE, UserError
from tests.flamingo.conftest import World, options_of_a_run

Options = Callable[..., Train]
pytestmark = pytest.mark.slow


def weights(options: Train, step: int) -> dict[str, torch.Tensor]:
    folder = Path(options.run_name) / "checkpoints" / f"step-{step:08d}"
    return read_weights(folder)


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def whole(world: World, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """A run of six steps, saved after every second, that tests compare theirs with."""
    folder = tmp_path_factory.mktemp("shared") / "whole"
    options = options_of_a_run(world, folder, max_steps=6, save_steps=2)
    train(options)
    return options


@pytest.fixture(scope="module")
def made(world: World, tmp_path_factory: pytest.TempPathFactory) -> Train:
    folder = tmp_path_factory.mktemp("shared") / "run"
    options = options_of_a_run(world, folder, max_steps=2, save_steps=1)
    train(options)
    return options


@pytest.fixture
def ended(made: Train, run_options: Options) -> Train:
    """A copy of a run that has ended after two steps, as `run_options("run")` names it."""
    options = run_options("run", max_steps=2)
    shutil.copytree(made.run_name, options.run_name)
    return options


def test_one_seed_gives_one_set_of_weights(run_options: Options, whole: Train) -> None:
    again, other = run_options("again"), run_options("other", seed=7)
    train(again)
    train(other)
    assert equal(weights(whole, 4), weights(again, 4))
    assert not equal(weights(whole, 4), weights(other, 4))


def test_n_steps_and_n_more_equal_2n(run_options: Options, whole: Train) -> None:
    halves = run_options("halves", max_steps=3)
    train(halves)
    resumed = train(run_options("halves", max_steps=6))
    assert resumed.resumed_from == 3
    assert equal(weights(whole, 6), weights(halves, 6))
    logs = [read_log(os.path.join(run.run_name, "metrics.jsonl")) for run in (whole, halves)]
    assert [line["losses"] for line in logs[0]] == [line["losses"] for line in logs[1]]
    assert [line["step"] for line in logs[1]] == [1, 2, 3, 4, 5, 6]


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    run_options: Options, whole: Train
) -> None:
    killed = run_options("killed", max_steps=6, save_steps=2)
    command = [sys.executable, "-m", "mmdata.cli", "train"]
    for name in ("mmc4_shards", "lm_path", "vision_encoder_path", "run_name", "max_steps"):
        command += [f"--{name}", str(getattr(killed, name))]
    command += ["--mmc4-min-image-bytes", "0", "--mmc4-max-tokens", "64", "--offline"]
    command += ["--batch-size-mmc4", "4", "--learning-rate", "1e-3", "--save-steps", "2"]
    command += ["--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    latest = Path(killed.run_name) / "checkpoints" / "latest"
    deadline = time.monotonic() + 300
    while not latest.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert latest.exists()
    train(killed)
    assert equal(weights(whole, 6), weights(killed, 6))


def test_how_a_global_batch_is_cut_into_micro_batches_changes_nothing(
    run_options: Options, whole: Train
) -> None:
    first = read_log(os.path.join(whole.run_name, "metrics.jsonl"))[:4]
    two = train(run_options("two", batch_size_mmc4=2, gradient_accumulation_steps=2))
    four = train(run_options("four", batch_size_mmc4=1, gradient_accumulation_steps=4))
    for other in (two, four):
        second = read_log(os.path.join(other.folder, "metrics.jsonl"))
        for left, right in zip(first, second, strict=True):
            assert right["losses"]["mmc4"] == pytest.approx(left["losses"]["mmc4"], abs=1e-5)
            assert right["gradient_norm"] == pytest.approx(left["gradient_norm"], rel=1e-3)


def test_any_subset_of_the_streams_trains(run_options: Options, world: World) -> None:
    captions = str(world.captions)
    both = train(run_options("both", laion_shards=captions))
    alone = train(run_options("alone", mmc4_shards=None, laion_shards=captions))
    assert set(both.losses) == {"mmc4", "laion"}
    assert set(alone.losses) == {"laion"}
    with pytest.raises(UserError, match="nothing to train on"):
        run_options("none", mmc4_shards=None)


def test_the_media_rows_train_in_and_out(run_options: Options) -> None:
    options = run_options("trained", save_steps=1, train_output_rows=True)
    train(options)
    before, after = weights(options, 1), weights(options, 4)
    rows = [name for name in after if "media_tokens" in name]
    assert len(rows) == 2  # of the input, and of the untied output
    for name in rows:
        assert after[name].shape[0] == 2
        assert (after[name] != before[name]).any(dim=1).all(), name


def test_frozen_rows_are_in_the_checkpoint_all_the_same(run_options: Options) -> None:
    options = run_options("frozen", freeze_lm_embeddings=True, save_steps=1)
    train(options)
    before, after = weights(options, 1), weights(options, 4)
    for name in ("media_tokens.input_rows", "media_tokens.output_rows"):
        assert torch.equal(before[name], after[name]), name


def test_a_stream_that_yields_nothing_stops_at_once_with_the_counts(run_options: Options) -> None:
    """A look at every document once, with its count of them, and not at the data for ever."""
    expected = r"every document is below --mmc4-textsim-threshold 0\.99: all 47 dropped"
    with pytest.raises(UserError, match=expected):
        train(run_options("nothing", mmc4_textsim_threshold=0.99))


def test_steps_that_are_not_finite_are_skipped_counted_and_end_the_run(
    run_options: Options,
) -> None:
    options = run_options("inf", loss_multiplier_mmc4=float("inf"), max_skipped_steps=3)
    with pytest.raises(NotFiniteError, match="3 steps in a row were not finite"):
        train(options)
    log = read_log(os.path.join(options.run_name, "metrics.jsonl"))
    assert [line["skipped"] for line in log] == [True, True]


@pytest.mark.usefixtures("ended")
def test_a_resume_with_another_sequence_of_samples_is_refused(run_options: Options) -> None:
    with pytest.raises(UserError, match=r"mmc4: samples of a step: was 4, is 8"):
        train(run_options("run", batch_size_mmc4=8))
    with pytest.raises(UserError, match=r"mmc4: min_similarity: was 0.24, is 0.2"):
        train(run_options("run", mmc4_textsim_threshold=0.2))


def test_a_complete_run_says_so_and_does_nothing(ended: Train) -> None:
    again = train(ended)
    assert "complete (2 steps)" in summary(again)
    assert again.checkpoint is None


def test_shards_and_models_may_move_between_resumes(
    run_options: Options, ended: Train, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(str(ended.mmc4_shards), moved)
    assert train(run_options("run", max_steps=3, mmc4_shards=str(moved))).steps == 3


def test_only_the_newest_checkpoints_are_kept(run_options: Options) -> None:
    options = run_options("run", save_steps=1, keep_last=2)
    train(options)
    folder = Path(options.run_name) / "checkpoints"
    assert sorted(os.listdir(folder)) == ["latest", "step-00000003", "step-00000004"]


def test_checkpoints_come_by_epochs_and_at_the_best_validation_loss(
    run_options: Options, world: World
) -> None:
    options = run_options(
        "run",
        max_steps=6,
        train_num_samples_mmc4=7,  # two steps of four documents
        save_epochs=2,
        keep_last=1,
        keep_every=4,
        val_stream=(f"pairs={world.captions}",),
        val_every=1,
        keep_best="pairs",
    )
    train(options)
    root = Path(options.run_name) / "checkpoints"
    lines = read_log(os.path.join(options.run_name, "validation.jsonl"))
    losses = {line["step"]: line["losses"]["pairs"] for line in lines if line["step"]}
    best = min(losses, key=lambda step: losses[step])
    kept = {f"step-{step:08d}" for step in (4, 6, best)}
    assert set(os.listdir(root)) == kept | {"best", "latest"}
    assert (root / "best").read_text() == f"step-{best:08d}\n"


def test_epochs_to_save_by_need_a_number_of_samples(run_options: Options) -> None:
    with pytest.raises(UserError, match="--train-num-samples-mmc4"):
        train(run_options("run", save_epochs=1))


def test_a_signal_saves_and_asks_for_a_requeue(run_options: Options) -> None:
    options = run_options("run", max_steps=200)
    command = [sys.executable, "-m", "mmdata.cli", "train"]
    for name in ("mmc4_shards", "lm_path", "vision_encoder_path", "run_name", "max_steps"):
        command += [f"--{name}", str(getattr(options, name))]
    command += ["--mmc4-min-image-bytes", "0", "--mmc4-max-tokens", "64", "--offline"]
    command += ["--batch-size-mmc4", "4", "--learning-rate", "1e-3", "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    log = Path(options.run_name) / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    told, _ = process.communicate(timeout=300)
    assert process.returncode == EXIT_REQUEUE
    steps = len(read_log(str(log)))
    assert f"stopped by a signal after step {steps}; the same command goes on" in told
    assert read_state(str(find_checkpoint(options.run_name))).step == steps < 200
    assert train(run_options("run", max_steps=steps + 1)).resumed_from == steps


def test_a_run_leaves_a_log_and_its_options(run_options: Options) -> None:
    options = run_options("run")
    result = train(options)
    record = json.loads((Path(options.run_name) / "options.json").read_text())
    assert record["seed"] == options.seed
    assert "loss" in summary(result)
    assert f"mmdata train-report {options.run_name}" in summary(result)
    line = read_log(os.path.join(options.run_name, "metrics.jsonl"))[0]
    assert line["samples"] == 4
    assert line["tokens"] > 0
    assert line["images"] >= 4


def test_a_dry_run_writes_the_page_and_loads_no_model(run_options: Options, tmp_path: Path) -> None:
    lm = tmp_path / "lm"
    shutil.copytree(run_options().lm_path, lm)
    (lm / "model.safetensors").unlink()
    result = train(run_options("dry", lm_path=str(lm), dry_run=True, max_steps=None))
    page = Path(str(result.preview)).read_text(encoding="utf-8")
    assert "data:image/" in page
    assert "&lt;image&gt;" in page


def test_bf16_mixed_trains_fp32_weights(run_options: Options) -> None:
    options = run_options("bf16", precision="amp_bf16", max_steps=2)
    result = train(options)
    first, last = result.losses["mmc4"]
    assert last.loss == pytest.approx(first.loss, abs=1.0)
    assert {value.dtype for value in weights(options, 2).values()} == {torch.float32}
    train(run_options("bf16", max_steps=3))  # goes on in the precision that it began with
    kept = json.loads(Path(options.run_name, "options.json").read_text(encoding="utf-8"))
    assert (kept["precision"], kept["max_steps"]) == ("amp_bf16", 3)


def test_weights_of_another_run_start_a_new_one(run_options: Options, ended: Train) -> None:
    second = run_options("second", max_steps=1, learning_rate=0.0, init_from=ended.run_name)
    train(second)
    assert equal(weights(ended, 2), weights(second, 1))


@pytest.mark.usefixtures("ended")
def test_a_checkpoint_of_another_language_model_is_refused_before_anything_loads(
    run_options: Options, world: World, tmp_path: Path
) -> None:
    other = tmp_path / "lm"
    shutil.copytree(world.lm, other)
    weights_file = other / "model.safetensors"
    changed = {name: value + 1 for name, value in load_file(weights_file).items()}
    save_file(changed, weights_file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="does not fit: lm_sha256: expected") as refused:
        train(run_options("run", lm_path=str(other)))
    assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("ended")
def test_another_batch_size_is_a_new_sequence_only_when_asked_for(run_options: Options) -> None:
    with pytest.raises(UserError, match=r"samples of a step: was 4, is 8.*--allow-new-batch-size"):
        train(run_options("run", max_steps=4, batch_size_mmc4=8))
    allowed = run_options("run", max_steps=4, batch_size_mmc4=8, allow_new_batch_size=True)
    assert train(allowed).resumed_from == 2
    state = read_state(str(find_checkpoint(allowed.run_name)))
    lanes = Position.of_record(state.positions["mmc4"]).lanes
    assert len(lanes) == 8
    assert all(lane is not None and lane.epoch >= 1 for lane in lanes)  # none of epoch 0 again
    with pytest.raises(UserError, match="min_similarity"):  # nothing else may change with it
        train(
            run_options(
                "run", batch_size_mmc4=4, mmc4_textsim_threshold=0.2, allow_new_batch_size=True
            )
        )


def test_one_batch_is_shared_by_streams(run_options: Options, world: World) -> None:
    mixed = run_options(
        "mixed",
        mmc4_shards=None,
        stream=(f"web={world.shards}", f"pairs={world.captions}"),
        stream_opt=("web.max_tokens=64",),
        mix="web=0.6,pairs=0.4",
        batch_size=8,
        gradient_accumulation_steps=2,
    )
    result = train(mixed)
    assert set(result.losses) == {"web", "pairs"}
    line = read_log(os.path.join(mixed.run_name, "metrics.jsonl"))[0]
    assert line["samples"] == 16
    state = read_state(str(find_checkpoint(mixed.run_name)))
    assert {name: len(lanes) for name, lanes in state.positions.items()} == {"web": 10, "pairs": 6}


def test_drawn_with_replacement_and_resumed(run_options: Options, whole: Train) -> None:
    drawn = run_options("drawn", max_steps=6, dataset_resampled=True)
    train(drawn)
    halves = run_options("halves", max_steps=3, dataset_resampled=True)
    train(halves)
    train(run_options("halves", max_steps=6, dataset_resampled=True))
    assert equal(weights(drawn, 6), weights(halves, 6))
    assert not equal(weights(drawn, 6), weights(whole, 6))


def test_the_end_of_a_run_says_what_its_numbers_are_of() -> None:
    ends = (MeanLoss(5.25, 1, 5), MeanLoss(2.5, 36, 40))
    drops = {"document:no-images": 2, "image:below-similarity": 1, "image:over-cap": 3}
    said = summary(TrainResult("run", steps=40, losses={"web": ends}, drops=drops)).splitlines()
    assert said[:2] == [
        "web: training loss 5.2500 (mean of steps 1 to 5) -> 2.5000 (mean of steps 36 to 40)",
        "left out by selection: 2 documents (no-images 2); "
        "4 images (below-similarity 1, over-cap 3)",
    ]
    assert "left out by selection: nothing" in summary(TrainResult("run", losses={"web": ends}))


def test_a_language_model_that_is_not_there_is_a_missing_folder(run_options: Options) -> None:
    for option, name in (("lm_path", "/nonexistent"), ("vision_encoder_path", "./nothing/clip")):
        with pytest.raises(UserError) as raised:
            train(run_options(**{option: name}))
        assert str(raised.value) == f"--{option.replace('_', '-')} {name}: no such folder"
