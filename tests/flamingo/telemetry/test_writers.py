"""Each place gets the values: files always, TensorBoard and W&B when asked for."""

import json
import time
from pathlib import Path

import pytest

from flamingo.telemetry.jsonl import read_log
from flamingo.telemetry.writers import (
    JsonLinesWriter,
    TensorBoardWriter,
    WandbWriter,
    check_services,
    flattened,
)
from mmdata.errors import MissingExtraError, UserError

VALUES = {"losses": {"web": 2.5}, "learning_rate": 1e-4, "step_seconds": {"p95": 0.25}}


def test_nested_values_get_names_with_slashes_and_words_are_left_out() -> None:
    told = dict(flattened({**VALUES, "name": "H100", "mfu": None}))
    assert told == {"losses/web": 2.5, "learning_rate": 1e-4, "step_seconds/p95": 0.25}


class TestJsonLines:
    def test_a_line_is_there_as_soon_as_it_is_told(self, tmp_path: Path) -> None:
        writer = JsonLinesWriter(str(tmp_path), done=0)
        writer.write(1, VALUES)
        writer.event(1, "saved", {"checkpoint": "step-1"})
        assert read_log(str(tmp_path / "metrics.jsonl")) == [{"step": 1, **VALUES}]
        events = read_log(str(tmp_path / "events.jsonl"))
        assert events == [{"step": 1, "event": "saved", "checkpoint": "step-1"}]
        writer.close()

    def test_what_is_not_finite_is_null_as_json_has_no_word_for_it(self, tmp_path: Path) -> None:
        writer = JsonLinesWriter(str(tmp_path), done=0)
        writer.write(1, {"losses": {"web": float("nan")}, "gradient_norm": float("inf")})
        writer.close()
        text = (tmp_path / "metrics.jsonl").read_text()
        found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
        assert found == {"step": 1, "losses": {"web": None}, "gradient_norm": None}

    def test_a_resume_takes_back_the_steps_that_are_repeated(self, tmp_path: Path) -> None:
        first = JsonLinesWriter(str(tmp_path), done=0)
        for step in (1, 2, 3):
            first.write(step, VALUES)
            first.event(step, "skipped", {})
        first.close()
        with open(tmp_path / "metrics.jsonl", "a") as file:
            file.write('{"step": 4, "loss')  # a crash cut it
        second = JsonLinesWriter(str(tmp_path), done=2)
        second.write(3, VALUES)
        second.close()
        for name, steps in (("metrics.jsonl", [1, 2, 3]), ("events.jsonl", [1, 2])):
            assert [line["step"] for line in read_log(str(tmp_path / name))] == steps


class TestTensorBoard:
    def test_values_are_read_back_and_repeated_steps_stand_once(self, tmp_path: Path) -> None:
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        first = TensorBoardWriter(str(tmp_path), done=0)
        for step in (1, 2, 3):
            first.write(step, {"losses": {"web": float(step)}})
        first.event(3, "saved", {"checkpoint": "step-3"})
        first.close()
        second = TensorBoardWriter(str(tmp_path), done=2)
        second.write(3, {"losses": {"web": 30.0}})
        second.close()
        found = EventAccumulator(str(tmp_path / "telemetry" / "tensorboard")).Reload()
        values = {event.step: event.value for event in found.Scalars("losses/web")}
        assert values == {1: 1.0, 2: 2.0, 3: 30.0}
        assert "events/saved/text_summary" in found.Tags()["tensors"]


class TestWandb:
    @pytest.mark.slow
    def test_offline_a_run_is_written_to_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("wandb")
        monkeypatch.delenv("WANDB_MODE", raising=False)
        writer = WandbWriter(
            str(tmp_path), project="p", entity=None, offline=True, config={"seed": 42}
        )
        writer.write(1, VALUES)
        writer.event(1, "saved", {})
        writer.close()
        kept = (tmp_path / "telemetry" / "wandb-id").read_text().strip()
        (path,) = (tmp_path / "telemetry" / "wandb").glob(f"offline-run-*/run-{kept}.wandb")
        names = (b"losses/web", b"step_seconds/p95", b"events/saved")
        deadline = time.monotonic() + 300  # W&B's own process may write after the run has ended
        while not all(name in path.read_bytes() for name in names):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def test_a_resumed_run_goes_on_as_the_same_run_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wandb = pytest.importorskip("wandb")
        monkeypatch.delenv("WANDB_MODE", raising=False)
        asked: list[dict[str, object]] = []
        monkeypatch.setattr(wandb, "init", lambda **options: asked.append(options))
        for _ in range(2):
            WandbWriter(
                str(tmp_path / "my-run"), project=None, entity="us", offline=False, config={}
            )
        assert asked[0]["id"] == asked[1]["id"]
        assert asked[0]["resume"] == "allow"
        told = {name: asked[0][name] for name in ("project", "entity", "name", "mode")}
        assert told == {"project": "mmdata", "entity": "us", "name": "my-run", "mode": None}

    def test_a_service_that_does_not_let_us_in_is_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wandb = pytest.importorskip("wandb")

        def refuse(**_: object) -> None:
            raise wandb.errors.AuthenticationError("no API key configured\nlong explanation")

        monkeypatch.setattr(wandb, "init", refuse)
        with pytest.raises(UserError, match="no API key configured; `wandb login` first") as told:
            WandbWriter(str(tmp_path), project=None, entity=None, offline=False, config={})
        assert "\n" not in str(told.value)


def test_a_service_that_is_not_installed_is_said_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_services(())
    monkeypatch.setattr("mmdata.dependencies.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"--report-to wandb needs wandb.*\[wandb\]'"):
        check_services(["wandb"])
