"""`--stall-timeout` on the command line, and Ctrl-C in the middle of long units."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmdata.errors import UserError
from pipelines.align.options import Align
from pipelines.mmc4.run import convert_mmc4
from pipelines.validate.options import Validate
from tests.corpus import (
    Corpus,
    check_nothing_half_written,
    leftovers,
    make_corpus,
    run_cli,
    snapshot,
)
from tests.processes import SLOW, Start, committed, hooked, starter, wait_for_shards

MORE = ("--docs-per-shard", "4", "--workers", "2")
#: To finish what a run has left: without the seconds of another Ray.
IN_PROCESS = ("--docs-per-shard", "4", "--workers", "0")
#: The unit of the first input waits for ever before its first shard, so many times.
HANG = """
import os, time
from pipelines.conversion import run as convert
from pipelines.conversion.unit import convert_unit
def hanging(task, marker={marker!r}, times={times}):
    if task.unit.first_shard == 0:
        with open(marker, "a") as file:
            file.write("x")
        if os.path.getsize(marker) <= times:
            time.sleep(1e6)
    yield from convert_unit(task)
convert.convert_unit = hanging
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Three inputs, so three units, of two shards each."""
    return make_corpus(tmp_path_factory.mktemp("corpus"), records=24, files=3)


@pytest.fixture(scope="module")
def reference(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("reference") / "out"
    convert_mmc4(corpus.options(output, docs_per_shard=4), quiet=True)
    return snapshot(output)


@pytest.fixture
def start() -> Iterator[Start]:
    with starter() as begin:
        yield begin


def events(log: Path, kind: str) -> list[dict[str, object]]:
    lines = map(json.loads, log.read_text().splitlines())
    return [line for line in lines if line["event"] == kind]


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.ray
def test_a_unit_that_hangs_is_named_and_done_at_the_second_attempt(
    corpus: Corpus, reference: dict[str, str], tmp_path: Path
) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    more = (*MORE, "--stall-timeout", "5", "--log-json", str(log))
    hang = HANG.format(marker=str(tmp_path / "marker"), times=1)
    done = run_cli(hooked(corpus.command(output, *more), hang))
    assert done.returncode == 0, done.stdout + done.stderr
    said = f"{corpus.docs[0]}:docs_no_face_shard_0_v2.jsonl: no progress for 5 s (--stall-timeout)"
    assert f"{said}; it is run again" in " ".join(done.stderr.split())
    assert f"run again: {said}" in " ".join(done.stdout.split())
    (again,) = events(log, "again")
    assert (again["why"], f"{again['unit']}: {again['detail']}") == ("stalled", said)
    assert snapshot(output) == reference
    assert leftovers(output) == []


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.ray
def test_a_unit_that_always_hangs_fails_by_name_while_the_others_complete(
    corpus: Corpus, reference: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    hang = HANG.format(marker=str(tmp_path / "marker"), times=9)
    command = corpus.command(output, *MORE, "--stall-timeout", "5")
    done = run_cli(hooked(command, hang))
    assert done.returncode == 1, done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    assert f"failed: {corpus.docs[0]}:docs_no_face_shard_0_v2.jsonl: no progress for 5 s" in said
    assert "2 times: it was cancelled" in said
    assert sorted(path.stem for path in output.glob("[0-9]*.json")) == [
        *("000000002", "000000003", "000000004", "000000005")
    ]
    check_nothing_half_written(output)
    done = run_cli(corpus.command(output, *IN_PROCESS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert snapshot(output) == reference


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.ray
def test_an_interruption_in_the_middle_of_long_units_is_heeded_soon(
    corpus: Corpus, reference: dict[str, str], start: Start, tmp_path: Path
) -> None:
    """Each worker sleeps an hour after its first shard: the run does not wait for it."""
    output = tmp_path / "out"
    process = start(hooked(corpus.command(output, *MORE), SLOW.replace("0.3", "3600")))
    wait_for_shards(process, output, 2)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 3, stdout + stderr
    assert "run the same command again to go on" in " ".join(stdout.split())
    assert "Traceback" not in stdout + stderr
    check_nothing_half_written(output)
    assert committed(output) < 6
    done = run_cli(corpus.command(output, *IN_PROCESS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert snapshot(output) == reference


@pytest.mark.parametrize("seconds", [-1.0, 1.0, 4.9, float("nan")])
def test_a_patience_shorter_than_the_time_between_signs_of_life_is_refused(
    seconds: float, corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"--stall-timeout .*: expected 0 \(off\) or at least 5"):
        corpus.options(tmp_path, stall_timeout=seconds)
    with pytest.raises(UserError, match="--stall-timeout"):
        Align(shards=("a",), output="b", clip_model="c", stall_timeout=seconds)
    with pytest.raises(UserError, match="--stall-timeout"):
        Validate(shards=("a",), stall_timeout=seconds)


def test_no_patience_and_much_are_taken(corpus: Corpus, tmp_path: Path) -> None:
    assert corpus.options(tmp_path, stall_timeout=0.0).stall_timeout == 0
    assert corpus.options(tmp_path).stall_timeout == 600
