"""`mmdata train` as a launcher and as a rank: the same run, whoever started it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flamingo.launch.entry import is_rank, run_as_rank, run_train
from flamingo.launch.heartbeat import Heartbeat, read_signs
from flamingo.models.flamingo.options import Train
from flamingo.telemetry.jsonl import read_log
from flamingo.train.checkpoint.checkpoint import find_checkpoint
from mmdata.cli.main import main
from mmdata.errors import EXIT_REQUEUE, UserError

ROOT = Path(__file__).resolve().parents[3]
Options = Callable[..., Train]


def options(**changes: object) -> Train:
    given: dict = {"lm_path": "lm", "run_name": "run", "mmc4_shards": "shards"}
    return Train(**(given | changes))


def test_a_rank_does_not_start_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="leave it out under torchrun and srun"):
        run_train(options(nproc_per_node="2"))


def test_several_nodes_need_a_place_to_meet() -> None:
    with pytest.raises(UserError, match=r"--nnodes 2: expected --rdzv-endpoint HOST:PORT"):
        run_train(options(nproc_per_node="2", nnodes="2"))


def test_a_task_of_srun_gets_the_variables_of_torchrun() -> None:
    environ = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_PROCID": "1",
        "SLURM_JOB_ID": "9",
        "SLURM_STEP_NODELIST": "a[1-2]",
    }
    assert is_rank(environ)
    assert (environ["RANK"], environ["WORLD_SIZE"], environ["MASTER_ADDR"]) == ("1", "2", "a1")
    assert not is_rank({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"})


class TestHowARankEnds:
    @pytest.fixture
    def heartbeat(self, tmp_path: Path) -> Heartbeat:
        heartbeat = Heartbeat(str(tmp_path), rank=1, size=2, timeout_seconds=2.0)
        heartbeat.start()
        return heartbeat

    @pytest.mark.parametrize(
        ("error", "exit_code", "cause", "text"),
        [
            (UserError("no shards"), 2, "told", "no shards"),
            (KeyboardInterrupt(), 3, "told", "interrupted; run the same command again to go on"),
            (OSError(28, "No space left", "run/x"), 2, "told", "run/x: No space left"),
            (RuntimeError("shapes differ\nhere"), 1, "unexpected", "RuntimeError: shapes differ"),
            (
                RuntimeError("gloo/transport/tcp/x.cc:1] Timed out waiting 10ms for recv"),
                1,
                "lost",
                "no answer from the other ranks in time: rank 0 has given no sign of life at all",
            ),
            (
                RuntimeError("gloo/transport/tcp/pair.cc:1] Connection closed by peer"),
                1,
                "lost",
                "lost the other ranks: rank 0 has given no sign of life at all",
            ),
        ],
    )
    def test_an_error_is_told_by_its_kind(
        self, heartbeat: Heartbeat, error: BaseException, exit_code: int, cause: str, text: str
    ) -> None:
        def work() -> int:
            raise error

        assert run_as_rank(work, heartbeat) == (exit_code, text)
        (sign,) = read_signs(heartbeat.folder)
        assert (sign.exit_code, sign.cause, sign.text) == (exit_code, cause, text)

    def test_a_run_that_was_asked_to_stop_is_not_to_be_started_again(
        self, heartbeat: Heartbeat
    ) -> None:
        assert run_as_rank(lambda: EXIT_REQUEUE, heartbeat) == (EXIT_REQUEUE, "")
        (sign,) = read_signs(heartbeat.folder)
        assert (sign.exit_code, sign.cause) == (EXIT_REQUEUE, "told")


def command_of(run: Train, *more: str) -> list[str]:
    names = ("mmc4_shards", "lm_path", "vision_encoder_path", "run_name", "max_steps", "device")
    given = [f"--{name}={getattr(run, name)}" for name in names]
    given += ["--mmc4-min-image-bytes=0", "--mmc4-max-tokens=64", "--batch-size-mmc4=2"]
    return [*given, "--learning-rate=1e-3", "--offline", *more]


@pytest.mark.slow
@pytest.mark.matrix
def test_a_rank_is_killed_and_the_run_is_asked_to_stop_and_goes_on_to_its_end(
    run_options: Options,
) -> None:
    """Two ranks; one is killed after a save and all start again; SIGTERM; the same command."""
    run = run_options("two", max_steps=400)
    logs, log = Path(run.run_name, "logs"), Path(run.run_name, "metrics.jsonl")
    more = ["--nproc-per-node=2", "--max-restarts=1", "--save-steps=2", "--dist-timeout=60"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mmdata.cli", "train", *command_of(run, *more)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: find_checkpoint(run.run_name) is not None, process)
    killed = read_signs(str(logs))[1]
    os.kill(killed.pid, signal.SIGKILL)
    wait_until(lambda: find_checkpoint_after_restart(logs, killed.launch), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode == EXIT_REQUEUE, err
    assert f"rank 1 (process {killed.pid} " in err
    assert re.search(r"was killed by SIGKILL .*; restart 1 of 1$", err, re.MULTILINE)
    steps = [line["step"] for line in read_log(str(log))]
    assert steps == list(range(1, len(steps) + 1))  # none twice, none left out
    saved = find_checkpoint(run.run_name)
    assert saved is not None
    assert saved.endswith(f"step-{len(steps):08d}")


def find_checkpoint_after_restart(logs: Path, launch: str) -> bool:
    """Whether ranks of a later start have taken some steps."""
    signs = read_signs(str(logs))
    return all(sign.launch != launch and sign.marks > 9 for sign in signs)


def wait_until(happened: Callable[[], bool], process: subprocess.Popen, seconds: float = 300):
    deadline = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_an_error_of_the_ranks_is_one_line_and_their_exit_code(
    run_options: Options, capfd: pytest.CaptureFixture[str]
) -> None:
    run = run_options("none", mmc4_shards="/nowhere", max_steps=2)
    assert main(["train", *command_of(run, "--nproc-per-node=2")]) == 2
    assert capfd.readouterr().err == "mmdata: stream mmc4: /nowhere: no such file\n"
