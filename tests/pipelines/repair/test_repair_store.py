"""`repair`, `index` and Energon's files in an object store, and from the command line."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipelines.repair.index import index
from pipelines.repair.options import Index, Repair
from pipelines.repair.run import repair
from tests.corpus import cli, environment, run_cli, snapshot
from tests.object_store import ObjectStore
from tests.shard_factory import flip, make_dataset, make_pairs

pytestmark = pytest.mark.slow


def damaged(folder: Path, *, shards: int = 3) -> Path:
    dataset = make_dataset(folder, shards=shards)
    flip(dataset.path(1), 100)
    return folder


def test_shards_in_a_store_are_repaired_into_it(
    object_store: ObjectStore, bucket: str, tmp_path: Path
) -> None:
    folder = damaged(tmp_path / "in")
    here = Repair(shards=(str(folder),), output=str(tmp_path / "out"), workers=0, energon=True)
    assert repair(here, quiet=True).complete
    object_store.put_folder(folder, f"{bucket}/in")
    command = ["repair", f"{bucket}/in", "--output", f"{bucket}/out", "--energon", "--workers", "0"]
    done = run_cli(cli(*command))
    assert done.returncode == 0, done.stderr
    assert "header-mended" in done.stdout
    expected = {name: digest for name, digest in snapshot(tmp_path / "out").items()}
    assert object_store.snapshot(f"{bucket}/out") == expected
    assert any(name.endswith(".tar.idx") for name in expected)
    again = run_cli(cli(*command))
    assert "3 shards were there already" in again.stdout


def test_shards_in_a_store_are_indexed_there(
    object_store: ObjectStore, bucket: str, tmp_path: Path
) -> None:
    make_pairs(tmp_path / "in")
    object_store.put_folder(tmp_path / "in", bucket)
    done = run_cli(cli("index", bucket, "--energon", "--workers", "0"))
    assert done.returncode == 0, done.stderr
    index(Index(shards=(str(tmp_path / "in"),), energon=True, workers=0))
    assert object_store.snapshot(bucket) == snapshot(tmp_path / "in")
    assert run_cli(cli("validate", bucket, "--workers", "0")).returncode == 0


def test_an_interrupted_repair_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    folder = damaged(tmp_path / "in", shards=40)
    whole = Repair(shards=(str(folder),), output=str(tmp_path / "whole"), workers=0)
    assert repair(whole, quiet=True).complete
    output = tmp_path / "out"
    command = cli("repair", str(folder), "--output", str(output), "--workers", "0")
    running = subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 300
    while not (output / "000000001.json").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    running.send_signal(signal.SIGINT)
    running.communicate()
    assert running.returncode == 3
    assert not (output / "manifest.json").exists()
    done = run_cli(command)
    assert done.returncode == 0, done.stderr
    assert snapshot(output) == snapshot(tmp_path / "whole")
    assert not [name for name in os.listdir(output) if name.endswith(".tmp")]


def test_the_command_line_says_what_became_of_it(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"hello" * 200)
    done = run_cli(cli("repair", str(tmp_path / "0.tar"), "--output", str(tmp_path / "out")))
    assert done.returncode == 2
    assert "nothing of it can be saved" in done.stderr
    assert len(done.stderr.splitlines()) == 1
