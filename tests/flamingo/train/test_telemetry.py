"""A run's telemetry as it lies in its folder afterwards, and what the options say of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flamingo.launch.run import train
from flamingo.models.flamingo.options import Train
from flamingo.report.options import TrainReport
from flamingo.report.page import train_report
from flamingo.telemetry.jsonl import read_log
from flamingo.train import telemetry
from mmdata.cli.main import main
from mmdata.errors import MissingExtraError, UserError
from tests.flamingo.conftest import World

Options = Callable[..., Train]


def lines(options: Train, name: str) -> list[dict[str, Any]]:
    return read_log(str(Path(options.run_name) / name))


@pytest.mark.slow
def test_a_run_and_its_resume_leave_metrics_events_samples_and_a_report(
    run_options: Options, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(telemetry, "_peak", lambda device, options: 1e12)
    common: dict[str, Any] = {
        "laion_shards": str(world.captions),
        "val_stream": (f"held-out={world.captions}",),
        "logging_steps": 2,
        "report_to": "tensorboard",
        "telemetry_seconds": 3600.0,  # none but the first and the last, however long a step takes
    }
    train(run_options("run", max_steps=2, **common))
    options = run_options("run", max_steps=5, **common)
    train(options)

    metrics = lines(options, "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3, 4, 5]
    assert ["interval" in line for line in metrics] == [False, True, False, True, True]
    last = metrics[3]["interval"]
    assert last["steps"] == 2
    assert set(last["losses"]) == set(last["samples_per_second_per_gpu"]) == {"mmc4", "laion"}
    seconds = sum(line["seconds"] for line in metrics[2:4])
    assert last["mfu"] == pytest.approx(last["flops"] / seconds / 1e12, rel=1e-2)
    assert last["flops"] > 1e6
    ratio = last["flops_with_padding"] / last["flops"]
    assert last["mfu_with_padding"] == pytest.approx(last["mfu"] * ratio)
    padded = sum(line["positions"] - line["tokens"] for line in metrics[2:4])
    assert (last["flops_with_padding"] > last["flops"]) == (padded > 0)

    events = [(line["step"], line["event"]) for line in lines(options, "events.jsonl")]
    assert events == [
        (0, "validation"),
        (2, "validation"),
        (2, "saved"),
        (2, "resumed"),
        (5, "validation"),
        (5, "saved"),
    ]
    measured = lines(options, "validation.jsonl")
    assert measured[0]["perplexity"]["held-out"] > 1
    samples = lines(options, "telemetry/rank-0.jsonl")
    assert [sample["step"] for sample in samples] == [0, 2, 2, 5]
    assert all(sample["host"]["rss_bytes"] > 1e8 for sample in samples)

    board = EventAccumulator(str(Path(options.run_name) / "telemetry" / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("losses/mmc4")] == [2, 4, 5]
    assert [event.step for event in board.Scalars("validation/perplexity/held-out")] == [0, 2, 5]
    assert "host/rss_bytes" in board.Tags()["scalars"]

    report = train_report(TrainReport(run=options.run_name))
    assert (report.steps, report.problems) == (5, [])


@pytest.mark.slow
def test_without_samples_and_services_only_the_files_are_written(run_options: Options) -> None:
    options = run_options("run", max_steps=1, telemetry_seconds=0.0)
    train(options)
    assert not (Path(options.run_name) / "telemetry").exists()
    assert len(lines(options, "metrics.jsonl")) == 1


def test_a_service_without_its_package_stops_before_anything_is_made(
    run_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmdata.dependencies.find_spec", lambda name: None)
    options = run_options("run", report_to="wandb")
    with pytest.raises(MissingExtraError, match=r"--report-to wandb needs wandb"):
        train(options)
    assert not Path(options.run_name).exists()


class TestOptions:
    def test_openflamingos_flag_is_the_service_of_that_name(self, run_options: Options) -> None:
        assert run_options().services == ()
        assert run_options(report_to_wandb=True).services == ("wandb",)
        both = run_options(report_to="tensorboard, wandb", report_to_wandb=True)
        assert both.services == ("tensorboard", "wandb")

    def test_a_service_that_is_none_is_refused(self, run_options: Options) -> None:
        with pytest.raises(UserError, match="--report-to mlflow: expected tensorboard or wandb"):
            run_options(report_to="mlflow")

    def test_time_between_samples_is_not_negative(self, run_options: Options) -> None:
        with pytest.raises(UserError, match="--telemetry-seconds -1"):
            run_options(telemetry_seconds=-1)


def test_the_command_writes_the_report_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"step": 1, "losses": {"web": 2.0}, "seconds": 1.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert main(["train-report", str(tmp_path)]) == 0
    assert f"{tmp_path}/report.html: 1 step (" in capsys.readouterr().out
    assert main(["train-report", str(tmp_path / "none")]) == 2
    assert "holds no metrics.jsonl" in capsys.readouterr().err
