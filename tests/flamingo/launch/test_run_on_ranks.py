"""`mmdata train` as the ranks that torchrun starts: one run, whose files are written once."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from flamingo.launch.run import train
from flamingo.models.flamingo.options import Train
from flamingo.telemetry.jsonl import read_log
from flamingo.train.checkpoint.checkpoint import find_checkpoint, read_state
from tests.flamingo.conftest import World

Options = Callable[..., Train]
pytestmark = pytest.mark.slow


def run_ranks(options: Train, number: int) -> list[tuple[int, str, str]]:
    """Exit code, output and error output of each rank."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    processes = []
    for rank in range(number):
        environ = {"RANK": rank, "WORLD_SIZE": number, "LOCAL_RANK": rank, "OMP_NUM_THREADS": 1}
        environ |= {"LOCAL_WORLD_SIZE": number, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "mmdata.cli", "train", *arguments_of(options)],
                env=os.environ | {name: str(value) for name, value in environ.items()},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    ended = [process.communicate(timeout=300) for process in processes]
    return [(p.returncode, *texts) for p, texts in zip(processes, ended, strict=True)]


def arguments_of(options: Train) -> list[str]:
    """The command line of what is not at its default."""
    defaults = {column.name: column.default for column in fields(Train)}
    arguments: list[str] = []
    for name, value in asdict(options).items():
        flag = "--" + name.replace("_", "-")
        if value == defaults[name]:
            continue
        if isinstance(value, bool):
            arguments.append(flag if value else flag.replace("--", "--no-"))
        else:
            for one in value if isinstance(value, tuple) else (value,):
                arguments += [flag, str(one)]
    return arguments


def test_two_ranks_make_one_run_that_one_process_goes_on_with(
    run_options: Options, world: World
) -> None:
    changes = {
        "batch_size_mmc4": 2,
        "save_steps": 2,
        "logging_steps": 1,
        "val_stream": (f"held={world.captions}",),
    }
    alone = train(run_options("alone", gradient_accumulation_steps=2, **changes))
    options = run_options("ranks", **changes)
    first, second = run_ranks(options, 2)
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    folder = Path(options.run_name)
    lines = read_log(str(folder / "metrics.jsonl"))
    expected = read_log(f"{alone.folder}/metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for line, one in zip(lines, expected, strict=True):
        assert line["losses"]["mmc4"] == pytest.approx(one["losses"]["mmc4"], abs=1e-5)
        for count in ("samples", "tokens", "images", "drops"):
            assert line[count] == one[count]
    measured = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    assert [line["step"] for line in measured] == [0, 4]
    assert measured[-1]["losses"]["held"] == pytest.approx(alone.validation["held"], abs=1e-5)
    assert first[1].count("step      3") == 1
    assert second[1] == ""
    assert sorted(os.listdir(folder / "checkpoints")) == [
        "latest",
        "step-00000002",
        "step-00000004",
    ]
    state = read_state(str(find_checkpoint(options.run_name)))
    assert state.positions == read_state(str(find_checkpoint(alone.folder))).positions
    # One process, the same command: two micro-batches a step keep the four samples.
    resumed = train(run_options("ranks", **changes | {"max_steps": 5}))
    assert resumed.resumed_from == 4
    assert [line["samples"] for line in read_log(str(folder / "metrics.jsonl"))] == [4] * 5


@pytest.mark.matrix
def test_what_is_wrong_is_said_once(run_options: Options, tmp_path: Path) -> None:
    first, second = run_ranks(run_options("wrong", mmc4_shards=str(tmp_path / "none")), 2)
    assert (first[0], second[0]) == (2, 2)
    assert first[2].count("mmdata: ") == 1
    assert str(tmp_path / "none") in first[2]
    assert "mmdata: " not in second[2]
