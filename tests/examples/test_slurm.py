"""The SLURM job: its flags exist, and it goes back into the queue when the run has saved."""

import os
import re
import signal
import subprocess
import time
from dataclasses import fields
from pathlib import Path

import pytest

from flamingo.models.flamingo.options import Train

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "examples" / "slurm" / "train.sbatch"

#: Stands for srun: says that it runs, and on USR1 ends as the trainer does.
SRUN = """#!/bin/bash
trap 'exit CODE' USR1
echo "$@" > "$0.ran"
for _ in $(seq 12000); do sleep 0.05; done
"""


def flags_of_train(text: str) -> set[str]:
    """Flags on the lines of a text that call `mmdata train`, comments' continuation included."""
    joined = text.replace("\\\n#", " ").replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if re.search(r"mmdata train|train\.sbatch", line)]
    behind = [re.split(r"mmdata train|train\.sbatch", line)[-1].split("#")[0] for line in lines]
    return {flag for line in behind for flag in re.findall(r"--([a-z][a-z0-9_-]+)", line)}


@pytest.mark.parametrize("page", ["examples/slurm/train.sbatch", "docs/training.md", "README.md"])
def test_every_flag_that_is_shown_exists(page: str) -> None:
    shown = flags_of_train((ROOT / page).read_text(encoding="utf-8"))
    assert shown
    known = {column.name for column in fields(Train)}
    assert {flag for flag in shown if flag.replace("-", "_") not in known} == set()


def test_the_job_is_a_script_of_bash() -> None:
    subprocess.run(["bash", "-n", str(JOB)], check=True)


@pytest.mark.parametrize(("code", "requeued"), [(85, True), (1, False)])
def test_a_job_whose_time_ends_is_requeued_when_the_run_has_saved(
    tmp_path: Path, code: int, requeued: bool
) -> None:
    srun, scontrol = tmp_path / "srun", tmp_path / "scontrol"
    srun.write_text(SRUN.replace("CODE", str(code)))
    scontrol.write_text('#!/bin/bash\necho "$@" > "$0.ran"\n')
    for stub in (srun, scontrol):
        stub.chmod(0o755)
    job = subprocess.Popen(
        ["bash", str(JOB), "--run-name", "a run"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711"},
    )
    ran = tmp_path / "srun.ran"
    deadline = time.monotonic() + 300
    while not (ran.exists() and ran.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "--run-name a run" in ran.read_text()
    job.send_signal(signal.SIGUSR1)
    assert job.wait(300) == (0 if requeued else code)
    asked = tmp_path / "scontrol.ran"
    assert asked.exists() == requeued
    if requeued:
        assert asked.read_text() == "requeue 4711\n"
