"""mmdata status: what it says of a run before, while and after, and what --clean may touch."""

import os
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from mmdata.errors import UserError
from mmdata.storage.atomic import temporary_path
from mmdata.storage.lease import LEASE_NAME, Lease, LeaseHolder
from pipelines.conversion.status import status
from pipelines.conversion.status_options import Status
from pipelines.mmc4.run import convert_mmc4
from tests.corpus import Corpus, cli, environment, leftovers, make_corpus, run_cli, snapshot


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return make_corpus(tmp_path / "in", records=24, files=3)


def test_a_folder_without_a_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no conversion has been planned there"):
        status(Status(output=str(tmp_path)))


def test_a_complete_run(corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = convert_mmc4(corpus.options(output, docs_per_shard=4), quiet=True)
    before = snapshot(output)
    found = status(Status(output=str(output)))
    assert (found.state, found.exit_code, found.holder) == ("complete", 0, None)
    assert (found.shards_done, found.shards_total) == (6, 6)
    assert (found.records_done, found.records_total) == (24, 24)
    assert found.tally == result.tally
    assert found.seconds_left is None
    assert snapshot(output) == before


def test_a_run_that_stopped(corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "out"
    convert_mmc4(corpus.options(output, docs_per_shard=4, limit=9), quiet=True)
    found = status(Status(output=str(output)))
    assert (found.state, found.exit_code) == ("stopped", 1)
    assert 0 < found.shards_done < found.shards_total
    shown = run_cli(cli("status", str(output)))
    assert shown.returncode == 1
    assert f"{output}: stopped" in shown.stdout
    assert "run the same command again" in shown.stdout
    assert "missing" in shown.stdout


def test_a_run_elsewhere_is_running_until_it_is_silent(corpus: Corpus, tmp_path: Path) -> None:
    """By its heartbeat alone: processes of another host cannot be looked at."""
    output = tmp_path / "out"
    convert_mmc4(corpus.options(output, docs_per_shard=4, limit=20), quiet=True)
    lease = output / LEASE_NAME
    lease.write_bytes(msgspec.json.encode(LeaseHolder("run", "another-host", 1, "")))
    for at, path in enumerate(sorted(output.glob("[0-9]*.json"))):
        os.utime(path, (1_000_000 + at * 2,) * 2)
    found = status(Status(output=str(output)))
    assert (found.state, found.exit_code) == ("running", 0)
    assert found.holder is not None
    assert found.holder.host == "another-host"
    assert found.heartbeat_seconds < 60
    assert found.records_per_second == pytest.approx(2, rel=0.1)
    assert found.seconds_left is not None
    with pytest.raises(UserError, match="another run is writing there"):
        status(Status(output=str(output), clean=True))
    os.utime(lease, (time.time() - 100,) * 2)
    assert status(Status(output=str(output))).state == "crashed"


def test_clean_removes_leftovers_and_nothing_else(corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "out"
    convert_mmc4(corpus.options(output), quiet=True)
    before = snapshot(output)
    for name in ("000000000.tar", "000000001.json"):
        Path(temporary_path(str(output / name))).write_bytes(b"half")
    (output / ".hidden-of-the-user").write_bytes(b"x")
    assert status(Status(output=str(output))).leftovers == 2
    cleaned = status(Status(output=str(output), clean=True))
    assert (cleaned.cleaned, cleaned.leftovers) == (2, 0)
    assert leftovers(output) == [".hidden-of-the-user"]
    (output / ".hidden-of-the-user").unlink()
    assert snapshot(output) == before


def test_clean_leaves_a_live_run_alone(corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "out"
    convert_mmc4(corpus.options(output), quiet=True)
    with Lease(str(output)):
        assert status(Status(output=str(output))).state == "running"
        with pytest.raises(UserError, match="another run is writing there"):
            status(Status(output=str(output), clean=True))


@pytest.mark.slow
def test_a_real_run_while_it_goes_on_and_when_it_was_killed(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "in", records=150, files=6)
    output = tmp_path / "out"
    process = subprocess.Popen(
        corpus.command(output, "--docs-per-shard", "1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    try:
        deadline = time.monotonic() + 300
        while len(list(output.glob("[0-9]*.json"))) < 5:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        found = status(Status(output=str(output)))
        assert found.state == "running"
        assert found.holder is not None
        assert found.holder.pid == process.pid
        assert 0 < found.records_done < 150
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    crashed = status(Status(output=str(output)))
    assert (crashed.state, crashed.exit_code) == ("crashed", 1)
    cleaned = status(Status(output=str(output), clean=True))
    assert cleaned.state == "stopped"
    assert leftovers(output) == []
