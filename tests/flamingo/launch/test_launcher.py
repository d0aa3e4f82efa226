"""Ranks start together; when one fails, the user hears which and why, and how it can go on."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flamingo.launch.heartbeat import Sign, read_signs
from flamingo.launch.launcher import (
    Launch,
    RanksFailedError,
    find_cause,
    launch,
    number_of_nodes,
    number_of_ranks,
)
from mmdata.errors import EXIT_REQUEUE, UserError

ROOT = Path(__file__).resolve().parents[3]
RANK = [sys.executable, "-m", "tests.flamingo.launch.toy_rank"]


def sign(rank: int, **said: object) -> Sign:
    given: dict = {"rank": rank, "host": "gpu1", "pid": 100 + rank, "step": 7, "doing": "computes"}
    return Sign(**(given | said))


class TestWhoIsToBlame:
    def test_an_error_that_says_what_is_wrong_is_shown_as_it_is_and_not_tried_again(self) -> None:
        lost = sign(0, exit_code=1, cause="lost", text="lost the other ranks")
        told = sign(1, exit_code=2, cause="told", text="no shards")
        failure, may_help = find_cause([lost, told], {0: 1, 1: 2}, "logs")
        assert (str(failure), failure.exit_code, may_help) == ("no shards", 2, False)

    def test_of_ranks_that_relay_an_error_the_one_with_the_text_speaks(self) -> None:
        relayed = sign(0, exit_code=2, cause="told")
        told = sign(1, exit_code=2, cause="told", text="no shards")
        assert str(find_cause([relayed, told], {0: 2}, "logs")[0]) == "no shards"

    def test_an_unexpected_error_names_the_rank_and_its_log(self) -> None:
        signs = [sign(1, exit_code=1, cause="unexpected", text="KeyError: 'x'")]
        failure, may_help = find_cause(signs, {1: 1}, "run/logs")
        assert str(failure).startswith(
            "rank 1 (process 101 on gpu1) failed at step 7 (computes): KeyError: 'x' (the "
            "traceback stands in run/logs/rank-1.log)"
        )
        assert (failure.exit_code, may_help) == (1, True)

    def test_a_rank_that_was_killed_comes_before_those_that_lost_it(self) -> None:
        lost = sign(0, exit_code=1, cause="lost", text="lost the other ranks")
        failure, may_help = find_cause([lost, sign(1)], {0: 1, 1: -9}, "logs")
        assert str(failure).startswith("rank 1 (process 101 on gpu1) was killed by SIGKILL")
        assert may_help

    def test_ranks_that_nccl_aborted_leave_word_whom_they_waited_for(self) -> None:
        signs = [sign(0, finding="rank 1 has been silent"), sign(1)]
        failure, _ = find_cause(signs, {0: -signal.SIGABRT}, "logs")
        assert str(failure).startswith("rank 1 has been silent; ")

    def test_a_rank_that_ended_without_a_word_is_named_with_its_log(self) -> None:
        failure, _ = find_cause([], {3: 1}, "logs")
        assert str(failure).startswith("rank 3 ended with exit code 1 and no word; see logs/rank-3")


@pytest.mark.parametrize("told", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_ranks_that_makes_no_sense_is_refused(told: str) -> None:
    with pytest.raises(UserError, match=r"--nproc-per-node .*: expected a number, auto or gpu"):
        number_of_ranks(told)


def test_without_a_gpu_auto_is_one_rank_and_gpu_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert number_of_ranks("auto") == 1
    with pytest.raises(UserError, match="no GPU"):
        number_of_ranks("gpu")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    assert [number_of_ranks(told) for told in ("auto", "gpu", "3")] == [8, 8, 3]


def test_nodes_are_a_number_or_a_range() -> None:
    assert number_of_nodes("4") == (4, 4)
    assert number_of_nodes("2:8") == (2, 8)
    for told in ("0", "8:2", "2:", "x"):
        with pytest.raises(UserError, match="--nnodes"):
            number_of_nodes(told)


@pytest.mark.slow
@pytest.mark.matrix
def test_a_killed_rank_ends_the_others_a_restart_goes_on_and_an_error_ends_the_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Three starts are allowed; the second ends by an error that a third would meet again."""
    command = [*RANK, str(tmp_path), "9", "30", "1:5:kill", "1:8:error", "-"]
    with pytest.raises(RanksFailedError, match=r"^shard 7: is no shard$") as failed:
        launch(command, str(tmp_path), Launch(nproc=2, max_restarts=2))
    assert failed.value.exit_code == 2
    out, err = capfd.readouterr()
    assert out.splitlines() == ["rank 0 of 2 goes on from 0", "rank 0 of 2 goes on from 4"]
    assert re.fullmatch(
        r"mmdata: rank 1 \(process \d+ on \S+\) was killed by SIGKILL .*; restart 1 of 2\n",
        err.splitlines(keepends=True)[-1],
    )
    assert "Traceback" not in err
    log = (tmp_path / "logs" / "rank-1.log").read_text()
    assert log.splitlines()[0] == "rank 1 of 2 goes on from 0"
    assert (tmp_path / "saved").read_text() == "7"


@pytest.mark.slow
@pytest.mark.matrix
def test_a_rank_that_hangs_is_named_after_the_timeout_and_ended(tmp_path: Path) -> None:
    with pytest.raises(RanksFailedError) as failed:
        launch([*RANK, str(tmp_path), "9", "5", "1:5:stop"], str(tmp_path), Launch(nproc=2))
    assert re.match(
        r"no answer from the other ranks in time: rank 1 \(process \d+ on \S+\) has given no sign "
        r"of life for \d+ s; last seen at ",
        str(failed.value),
    )
    stopped = read_signs(str(tmp_path / "logs"))[1]
    assert not Path(f"/proc/{stopped.pid}").exists()


@pytest.mark.slow
def test_a_signal_reaches_the_ranks_and_their_exit_code_comes_back(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from flamingo.launch.launcher import Launch, RanksFailedError, launch\n"
        "try:\n"
        f"    launch({[*RANK, str(tmp_path), '100000', '30', '-']!r}, {str(tmp_path)!r}, "
        "Launch(nproc=2, max_restarts=3))\n"
        "except RanksFailedError as error:\n"
        "    sys.stderr.write(f'{error}\\n')\n"
        "    sys.exit(error.exit_code)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: (tmp_path / "saved").exists(), process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert re.search(r"^saved step \d+$", out, re.MULTILINE), err
    assert process.returncode == EXIT_REQUEUE
    assert all(not Path(f"/proc/{one.pid}").exists() for one in read_signs(str(tmp_path / "logs")))


def wait_until(happened: Callable[[], bool], process: subprocess.Popen, seconds: float = 300):
    deadline = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.matrix
def test_ranks_join_under_srun_and_under_torchrun(tmp_path: Path) -> None:
    slurm = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_TASKS_PER_NODE": "2",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NODEID": "0",
    }
    arguments = ["3", "60", "-"]
    tasks = [
        subprocess.Popen(
            [*RANK, str(tmp_path / "slurm"), *arguments],
            cwd=ROOT,
            env=os.environ | slurm | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
        )
        for rank in (0, 1)
    ]
    assert [task.wait(120) for task in tasks] == [0, 0]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", "2", *RANK[1:], str(tmp_path / "torchrun"), *arguments]
    done = subprocess.run(torchrun, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for name in ("slurm", "torchrun"):
        signs = read_signs(str(tmp_path / name / "logs"))
        assert [(one.rank, one.step, one.exit_code) for one in signs] == [(0, 3, 0), (1, 3, 0)]
