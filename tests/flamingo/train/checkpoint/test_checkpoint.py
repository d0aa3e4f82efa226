"""A run's checkpoints: complete before they are named, and none is lost to a kill."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from flamingo.models.flamingo.checkpoint import trainable_state_dict
from flamingo.models.flamingo.model import Flamingo
from flamingo.modules.checkpoint_files import read_header, read_weights
from flamingo.train.checkpoint import checkpoint
from flamingo.train.checkpoint.checkpoint import Checkpointer, RunState, find_checkpoint, read_state
from flamingo.train.checkpoint.retention import SaveRule
from mmdata.errors import StorageError, UserError
from tests.flamingo.models.flamingo.tiny_lms import make_flamingo
from tests.flamingo.train.checkpoint.checkpoint_rank import NoTokenizer

Saver = Callable[..., Checkpointer]


@cache
def model() -> Flamingo:
    return make_flamingo("gpt_neox")


@pytest.fixture
def saver(tmp_path: Path) -> Iterator[Saver]:
    made = []

    def make(*, asynchronous: bool = False, **rule: Any) -> Checkpointer:
        made.append(
            Checkpointer(str(tmp_path), NoTokenizer(), SaveRule(**rule), asynchronous=asynchronous)
        )
        return made[-1]

    yield make
    for one in made:
        one.abandon()


def save(saver: Checkpointer, step: int, **state: Any) -> None:
    optimizer = torch.optim.AdamW([p for p in model().parameters() if p.requires_grad])
    saver.save(model(), optimizer, RunState(step=step, **state))


def step_at(run: Path) -> int:
    return read_state(str(find_checkpoint(str(run)))).step


class TestCheckpoint:
    def test_reads_as_flat_weights(self, saver: Saver, tmp_path: Path) -> None:
        save(saver(), 1)
        folder = str(find_checkpoint(str(tmp_path)))
        found, expected = read_weights(folder), trainable_state_dict(model())
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        shapes = {name: tuple(value.shape) for name, value in expected.items()}
        assert read_header(folder).shapes == shapes

    def test_says_what_wrote_it(self, saver: Saver, tmp_path: Path) -> None:
        save(saver(), 1, positions={"mmc4": [1]}, options={"seed": 7})
        state = read_state(str(find_checkpoint(str(tmp_path))))
        assert state.positions == {"mmc4": [1]}
        assert state.options == {"seed": 7}
        assert state.world == {"size": 1, "parallel": "none"}
        assert state.versions["torch"] == torch.__version__.partition("+")[0]
        assert "media_tokens.input_rows" in state.trained

    def test_of_a_step_is_written_once(self, saver: Saver, tmp_path: Path) -> None:
        one = saver()
        save(one, 3)
        save(one, 3)
        assert sorted(os.listdir(tmp_path / "checkpoints")) == ["latest", "step-00000003"]

    def test_that_latest_names_but_is_gone_is_said(self, saver: Saver, tmp_path: Path) -> None:
        save(saver(), 1)
        os.rename(tmp_path / "checkpoints" / "step-00000001", tmp_path / "moved")
        with pytest.raises(UserError, match=r"names .*step-00000001, which is no checkpoint"):
            find_checkpoint(str(tmp_path))
        assert find_checkpoint(str(tmp_path / "moved")) == str(tmp_path / "moved")


class TestBackground:
    @pytest.fixture
    def gate(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
        """Holds back every write of tensors until it is set."""
        gate, write = threading.Event(), checkpoint.save

        def held(*arguments: Any, **options: Any) -> Any:
            assert gate.wait(60)
            return write(*arguments, **options)

        monkeypatch.setattr(checkpoint, "save", held)
        yield gate
        gate.set()

    def test_latest_moves_when_the_save_is_complete(
        self, saver: Saver, tmp_path: Path, gate: threading.Event
    ) -> None:
        gate.set()
        one = saver(asynchronous=True)
        save(one, 1)
        one.wait()
        gate.clear()
        save(one, 2)  # does not wait
        assert not one.has_failed
        assert step_at(tmp_path) == 1
        gate.set()
        assert str(one.close()).endswith("step-00000002")
        assert step_at(tmp_path) == 2

    def test_what_training_changes_meanwhile_is_not_in_it(
        self, saver: Saver, tmp_path: Path, gate: threading.Event
    ) -> None:
        rows = model().media_tokens.input_rows
        one, before = saver(asynchronous=True), rows.detach().clone()
        save(one, 1)
        with torch.no_grad():
            rows += 1
        gate.set()
        saved = read_weights(str(one.close()))["media_tokens.input_rows"]
        assert torch.equal(saved, before)

    def test_an_error_ends_the_run_at_the_next_look(
        self, saver: Saver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = saver(asynchronous=True)
        save(one, 1)
        one.wait()
        monkeypatch.setattr(checkpoint, "FileSystemWriter", FullDisk)
        save(one, 2)
        while not one.has_failed:
            time.sleep(0.01)
        with pytest.raises(StorageError, match=r"No space left on device; the one before it is"):
            one.wait()
        assert step_at(tmp_path) == 1
        assert sorted(os.listdir(tmp_path / "checkpoints")) == ["latest", "step-00000001"]

    def test_is_left_where_a_state_cannot_be_copied_and_that_is_said_once(
        self,
        saver: Saver,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(checkpoint, "can_be_staged", lambda tensors: False)
        one = saver(asynchronous=True)
        for step in (1, 2):
            save(one, step)
            assert step_at(tmp_path) == step  # at once
        said = [record.message for record in caplog.records if record.name == checkpoint.__name__]
        assert said == ["this optimizer's state cannot be copied: training waits for each save"]


class FullDisk(checkpoint.FileSystemWriter):
    def write_data(self, *_arguments: Any) -> Any:
        raise OSError(28, "No space left on device")


class TestBest:
    def test_is_due_at_a_lower_loss_and_stays(self, saver: Saver, tmp_path: Path) -> None:
        one = saver(keep_best="web", keep_last=1)
        for step, loss in ((1, 3.0), (2, 2.0), (3, 2.5)):
            assert one.is_due(step, {"web": loss}) == (step != 3)
            save(one, step, validation={"web": loss})
        names = sorted(os.listdir(tmp_path / "checkpoints"))
        assert names == ["best", "latest", "step-00000002", "step-00000003"]
        assert (tmp_path / "checkpoints" / "best").read_text() == "step-00000002\n"

    def test_is_known_to_a_resume(self, saver: Saver) -> None:
        save(saver(keep_best="web"), 1, validation={"web": 2.0})
        again = saver(keep_best="web")
        assert not again.is_due(2, {"web": 2.1})
        assert again.is_due(2, {"web": 1.9})
        assert saver(keep_best="pairs").is_due(2, {"pairs": 9.0})  # another stream: a new best


@pytest.mark.slow
def test_killed_while_it_saves_the_previous_one_is_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.flamingo.train.saving_process", str(tmp_path), "5"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    last, half_written = map(int, done.stdout.split())
    assert last > 0
    assert half_written > 0  # some of the kills did come in the middle
