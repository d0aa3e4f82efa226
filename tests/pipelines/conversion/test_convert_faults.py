"""A conversion that is killed, interrupted or out of room: nothing half-written, and it goes on.

Real processes and real signals. Every test ends with the same command run again, and compares all
that it wrote to the byte with a conversion that nothing happened to.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from mmdata.storage.lease import LEASE_NAME, LeaseHolder, process_start
from pipelines.mmc4.run import convert_mmc4
from tests.corpus import (
    ROOT,
    Corpus,
    check_nothing_half_written,
    environment,
    leftovers,
    make_corpus,
    run_cli,
    run_here,
    snapshot,
)
from tests.processes import (
    committed,
    descendants,
    heed_interrupts,
    starter,
    wait_for_shards,
    wait_until_gone,
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

#: One record a shard: a run long enough to be hit in the middle, by its many commits.
RECORDS = 150
MORE = ("--docs-per-shard", "1")
#: Shards that a run may yet commit once it was asked to end: what was in hand, of any speed.
IN_HAND = 20


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), records=RECORDS, files=6)


@pytest.fixture(scope="module")
def reference(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("reference") / "out"
    convert_mmc4(corpus.options(output, docs_per_shard=1), quiet=True)
    return snapshot(output)


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(corpus: Corpus, tmp_path: Path) -> Iterator[Start]:
    """Start a conversion into `tmp_path / "out"` in a process group of its own."""
    with starter() as begin:
        yield lambda *more: begin(corpus.command(tmp_path / "out", *MORE, *more))


def run_again(corpus: Corpus, output: Path, reference: dict[str, str], *more: str) -> None:
    """The same command goes on, and in the end nothing shows what happened."""
    check_nothing_half_written(output)
    kept = committed(output)
    done = run_here(corpus.command(output, *MORE, *more))
    assert done.returncode == 0, done.stdout + done.stderr
    if kept < RECORDS:
        assert f"{kept} shards were there already and were kept" in done.stdout
    assert snapshot(output) == reference
    assert leftovers(output) == []


def test_a_driver_killed_half_way_is_resumed_to_equal_bytes(
    start: Start, corpus: Corpus, reference: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    for least in (3, 40):  # killed, and its continuation killed again
        process = start("--workers", "0")
        wait_for_shards(process, output, least)
        process.kill()
        process.wait()
        assert committed(output) < RECORDS
        assert not (output / "manifest.json").exists()
        check_nothing_half_written(output)
    run_again(corpus, output, reference, "--workers", "0")


def test_a_killed_driver_that_nobody_has_waited_for_does_not_hold_the_folder(
    start: Start, corpus: Corpus, reference: dict[str, str], tmp_path: Path
) -> None:
    """A zombie (containers without an init leave them) has a process id, but does not run."""
    output = tmp_path / "out"
    process = start("--workers", "0")
    wait_for_shards(process, output)
    os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 300
    while process_start(process.pid):  # until it does not run any more
        assert time.monotonic() < deadline
        time.sleep(0.005)
    run_again(corpus, output, reference, "--workers", "0")


@pytest.mark.ray
@pytest.mark.parametrize(
    "whole_group",
    [pytest.param(False, marks=pytest.mark.matrix, id="driver"), pytest.param(True, id="group")],
)
def test_a_ray_driver_killed_half_way_is_resumed_to_equal_bytes(
    whole_group: bool,
    start: Start,
    corpus: Corpus,
    reference: dict[str, str],
    tmp_path: Path,
) -> None:
    """Its workers may go on writing for some seconds: that changes nothing."""
    output = tmp_path / "out"
    process = start("--workers", "2")
    wait_for_shards(process, output, 10)
    below = descendants(process.pid)
    if whole_group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    done = run_cli(corpus.command(output, *MORE, "--workers", "0"))  # at once, not when all is calm
    assert done.returncode == 0, done.stdout + done.stderr
    wait_until_gone(below)
    assert snapshot_of_shards(output) == reference
    run_again(corpus, output, reference)


def snapshot_of_shards(output: Path) -> dict[str, str]:
    return {name: digest for name, digest in snapshot(output).items() if not name.startswith(".")}


@pytest.mark.ray
def test_a_killed_worker_is_made_up_for_by_the_run_itself(
    start: Start, corpus: Corpus, reference: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = start("--workers", "2")
    killed = 0
    for least in (5, 40):
        wait_for_shards(process, output, least)
        below = descendants(process.pid)
        busy = [pid for pid, command in below if command.startswith("ray::_attempt")]
        if busy:
            os.kill(busy[0], signal.SIGKILL)
            killed += 1
    stdout, stderr = process.communicate(timeout=300)
    assert killed
    assert process.returncode == 0, stdout + stderr
    assert "Traceback" not in stderr
    check_nothing_half_written(output)
    assert snapshot_of_shards(output) == reference
    run_again(corpus, output, reference)


@pytest.mark.parametrize(
    ("workers", "number"),
    [
        ("0", signal.SIGINT),
        pytest.param("2", signal.SIGTERM, marks=pytest.mark.ray),
        pytest.param("0", signal.SIGTERM, marks=pytest.mark.matrix),
        pytest.param("2", signal.SIGINT, marks=[pytest.mark.matrix, pytest.mark.ray]),
    ],
)
def test_an_interruption_ends_the_run_soon_and_says_how_to_go_on(
    workers: str,
    number: signal.Signals,
    start: Start,
    corpus: Corpus,
    reference: dict[str, str],
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    process = start("--workers", workers)
    wait_for_shards(process, output)
    below = descendants(process.pid)
    before = committed(output)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does on Ctrl-C
    else:
        process.send_signal(number)
    stdout, stderr = process.communicate(timeout=300)
    assert committed(output) <= before + IN_HAND < RECORDS
    assert process.returncode == 3, stdout + stderr
    assert "run the same command again to go on" in " ".join(stdout.split())
    assert "Traceback" not in stdout + stderr
    assert not (output / LEASE_NAME).exists()
    assert not (output / "manifest.json").exists()
    wait_until_gone(below)
    run_again(corpus, output, reference, "--workers", "0")


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open now."""
    opened = []
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            opened.append(os.readlink(one))
    return str(path) in opened


def test_an_interruption_while_counting_leaves_nothing(corpus: Corpus, tmp_path: Path) -> None:
    slow = tmp_path / "slow.jsonl"
    slow.write_bytes(b"[]\n" * 3_000_000)
    command = Corpus((str(slow),), corpus.images, 0).command(tmp_path / "out")
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        preexec_fn=heed_interrupts,
    )
    try:
        deadline = time.monotonic() + 300
        while not has_open(process.pid, slow):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=300)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 3, stdout + stderr
    assert "interrupted; run the same command again" in stderr
    assert "Traceback" not in stdout + stderr
    assert not (tmp_path / "out").exists()


def test_a_run_whose_lease_was_taken_over_commits_nothing_more(
    start: Start, corpus: Corpus, reference: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = start("--workers", "0")
    wait_for_shards(process, output)
    other = LeaseHolder("another-run", "another-host", 1, "1")
    draft = tmp_path / "lease"
    draft.write_bytes(msgspec.json.encode(other))
    os.replace(draft, output / LEASE_NAME)
    time.sleep(0.1)  # for a commit that had asked just before
    count = committed(output)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 1, stdout + stderr
    assert "another run has taken over" in stdout
    assert "Traceback" not in stdout + stderr
    assert committed(output) == count < RECORDS
    assert not (output / "manifest.json").exists()
    holder = msgspec.json.decode((output / LEASE_NAME).read_bytes(), type=LeaseHolder)
    assert holder == other
    (output / LEASE_NAME).unlink()
    run_again(corpus, output, reference, "--workers", "0")


def test_two_runs_at_one_time(start: Start, corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = start("--workers", "0")
    wait_for_shards(process, output)
    process.send_signal(signal.SIGSTOP)
    try:
        done = run_cli(corpus.command(output, *MORE))
        assert done.returncode == 2
        assert f"another run is writing there (process {process.pid} on " in done.stderr
        old = time.time() - 120
        os.utime(output / LEASE_NAME, (old, old))  # silent for two minutes: another host may go on
        done = run_cli(corpus.command(output, *MORE, "--workers", "0"))
        assert done.returncode == 0, done.stderr
        finished = snapshot(output)
    finally:
        process.send_signal(signal.SIGCONT)
    stdout, stderr = process.communicate(timeout=300)
    assert "Traceback" not in stdout + stderr
    assert snapshot_of_shards(output) == finished


def test_a_write_that_fails_fails_its_unit_and_leaves_nothing_behind(
    corpus: Corpus, reference: dict[str, str], tmp_path: Path
) -> None:
    """A file that may not grow stands for a disk that is full."""
    output = tmp_path / "out"
    done = run_cli(corpus.command(output, *MORE, "--workers", "0", "--limit", "1"))
    assert done.returncode == 0
    script = (
        "import resource, sys\n"
        "import pipelines.conversion.run_plan as convert\n"
        "save = convert.save_plan\n"
        "def then_fill(*arguments):\n"
        "    save(*arguments)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "convert.save_plan = then_fill\n"
        "from mmdata.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = corpus.command(output, *MORE, "--workers", "0", "--limit", "3")
    done = run_cli([sys.executable, "-c", script, *command[3:]])
    assert done.returncode == 1, done.stdout + done.stderr
    assert "failed: " in done.stdout
    assert "File too large" in done.stdout
    assert leftovers(output) == []
    assert committed(output) == 2  # the second record is broken: an empty shard fits
    run_again(corpus, output, reference, "--workers", "0")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a MB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_fails_the_run_and_room_resumes_it(
    tiny_disk: Path, corpus: Corpus, reference: dict[str, str]
) -> None:
    output = tiny_disk / "out"
    done = run_cli(corpus.command(output, *MORE, "--workers", "0"))
    assert done.returncode == 2
    assert "are to be written" in done.stderr
    done = run_cli(corpus.command(output, *MORE, "--workers", "0", "--ignore-free-space"))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "No space left on device" in done.stdout
    assert "mend the cause and run the same command again" in " ".join(done.stdout.split())
    check_nothing_half_written(output)
    assert leftovers(output) == []
    assert 0 < committed(output) < RECORDS
    remount = ["mount", "-o", "remount,size=64m", str(tiny_disk)]
    subprocess.run(remount, check=True)
    run_again(corpus, output, reference, "--workers", "0")


@pytest.mark.ray
@pytest.mark.parametrize("workers", [0, 1])
def test_a_converting_worker_loads_no_torch_and_no_webdataset(
    workers: int, corpus: Corpus, tmp_path: Path
) -> None:
    """webdataset pulls torch in, 630 MiB of it."""
    script = tmp_path / "modules.py"
    script.write_text(
        "import sys\n"
        "from pipelines.conversion import run as convert\n"
        "from pipelines.conversion.unit import convert_unit\n"
        "def reporting(task):\n"
        "    yield from convert_unit(task)\n"
        "    with open(task.output + '.txt', 'w') as file:\n"
        "        file.write('\\n'.join(sys.modules))\n"
        "convert.convert_unit = reporting\n"
        "if __name__ == '__main__':\n"
        "    from mmdata.cli.main import main\n"
        "    sys.exit(main(sys.argv[1:]))\n"
    )
    output = tmp_path / "out"
    command = [sys.executable, str(script), *corpus.command(output)[3:], "--workers", str(workers)]
    done = run_cli(command, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    loaded = set((tmp_path / "out.txt").read_text().split("\n"))
    assert "mmdata.samples.assemble" in loaded
    assert ("ray._private.worker" in loaded) == bool(workers)
    assert not loaded & {"torch", "webdataset", "torchvision", "open_clip", "transformers"}


def test_the_reference_is_a_whole_conversion(reference: dict[str, str]) -> None:
    assert sum(name.endswith(".tar") for name in reference) == RECORDS
    assert json.dumps(sorted(reference)).count("manifest.json") == 1
