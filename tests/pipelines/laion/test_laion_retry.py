"""--retry-failed asks again for what failed, and takes nothing away from what is there.

Also: a conversion that is killed, in its first run or while it tries again, goes on to the same
bytes. Real processes, real signals, a server that answers otherwise the second time.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.laion.run import convert_laion
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.corpus import check_nothing_half_written, cli, environment, leftovers, run_cli, snapshot
from tests.laion_factory import options, outcomes, pairs, rows, write
from tests.web import Web, serve


@pytest.fixture
def web() -> Iterator[Web]:
    """Fresh for each test, since it remembers what it was asked."""
    with serve() as running:
        yield running


def bytes_of(output: Path) -> dict[str, str]:
    """All but what holds times."""
    return {name: value for name, value in snapshot(output).items() if "outcomes" not in name}


def mixed(web: Web, count: int) -> list[dict[str, Any]]:
    """Of four rows: one is there, one comes the second time, one is gone, one is HTML."""
    paths = ["/ok/{}.jpg", "/flaky/1/{}.jpg", "/404?{}", "/html?{}"]
    return [
        {"URL": web.url(paths[k % 4].format(k)), "TEXT": f"Picture {k}.", "similarity": 0.3}
        for k in range(count)
    ]


@pytest.mark.parametrize("layout", ["interleaved", "pairs"])
def test_only_what_failed_is_asked_again(web: Web, tmp_path: Path, layout: str) -> None:
    source = write(tmp_path / "a.parquet", [*mixed(web, 8), *rows(web, 4)])
    given = {"layout": layout, "docs_per_shard": 4}
    first = convert_laion(options(source, tmp_path / "out", **given), quiet=True)
    assert first.tally.images_dropped == {"not-an-image": 2, "not-fetched": 4}
    before = pairs(tmp_path / "out")
    untouched = (tmp_path / "out" / "000000002.tar").stat().st_ino

    again = convert_laion(options(source, tmp_path / "out", **given, retry_failed=True), quiet=True)
    assert (again.shards_written, again.shards_kept, again.complete) == (2, 1, True)
    assert again.tally.images_dropped == {"not-an-image": 2, "not-fetched": 2}
    assert again.tally.records == again.tally.documents + 4
    after = pairs(tmp_path / "out")
    assert sorted(after) == sorted([*before, "000000000001", "000000000005"])
    assert {key: after[key] for key in before} == before
    assert (tmp_path / "out" / "000000002.tar").stat().st_ino == untouched
    asked = web.asked()
    assert {asked[f"/ok/{k}.jpg"] for k in (0, 4)} == {1, 2}  # 0 is in two rows, neither again
    assert {asked[f"/404?{k}"] for k in (2, 6)} == {2}
    report = validate(Validate(shards=(str(tmp_path / "out"),), workers=0))
    assert report.exit_code == 0


def test_the_result_is_that_of_a_web_that_was_well_at_once(web: Web, tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet", rows(web, 9, path="/flaky/1/{}.jpg"))
    given = {"docs_per_shard": 4, "retry_failed": False}
    convert_laion(options(source, tmp_path / "late", **given), quiet=True)
    assert {row["status"] for row in outcomes(tmp_path / "late")} == {"http-error"}
    convert_laion(options(source, tmp_path / "late", **given | {"retry_failed": True}), quiet=True)
    convert_laion(options(source, tmp_path / "once", **given), quiet=True)
    assert bytes_of(tmp_path / "late") == bytes_of(tmp_path / "once")
    assert {row["status"] for row in outcomes(tmp_path / "late")} == {"ok"}


def test_what_is_held_stays_though_its_server_has_gone(web: Web, tmp_path: Path) -> None:
    with serve() as other:
        table = [*rows(other, 3), *rows(web, 3, path="/flaky/1/{}.jpg")]
        source = write(tmp_path / "a.parquet", table)
        convert_laion(options(source, tmp_path / "out"), quiet=True)
    again = convert_laion(options(source, tmp_path / "out", retry_failed=True), quiet=True)
    assert (again.tally.images, again.exit_code) == (6, 0)


def test_nothing_failed_nothing_is_written(web: Web, tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet", rows(web, 3))
    convert_laion(options(source, tmp_path / "out"), quiet=True)
    before = snapshot(tmp_path / "out")
    again = convert_laion(options(source, tmp_path / "out", retry_failed=True), quiet=True)
    assert (again.shards_written, again.shards_kept) == (0, 1)
    assert snapshot(tmp_path / "out") == before


def test_a_damaged_shard_is_fetched_whole_and_not_copied(web: Web, tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet", mixed(web, 4))
    convert_laion(options(source, tmp_path / "out"), quiet=True)
    tar = tmp_path / "out" / "000000000.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    convert_laion(options(source, tmp_path / "out", retry_failed=True), quiet=True)
    assert validate(Validate(shards=(str(tmp_path / "out"),), workers=0)).exit_code == 0
    assert web.asked()["/ok/0.jpg"] == 2


def heed_interrupts() -> None:
    """In a child: a test run in the background has SIGINT ignored, and hands that down."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(command: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
        preexec_fn=heed_interrupts,
    )


def wait_for(process: "subprocess.Popen[str]", output: Path, documents: int) -> None:
    """Until the committed shards hold so many documents."""
    deadline = time.monotonic() + 300
    while True:
        found = 0
        for path in output.glob("[0-9]*.json"):
            try:
                found += json.loads(path.read_text())["tally"]["documents"]
            except FileNotFoundError:  # being written anew
                continue
        if found >= documents:
            return
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.matrix)]
)
def test_a_run_that_is_killed_goes_on(web: Web, tmp_path: Path, how: signal.Signals) -> None:
    count = 60
    source = write(tmp_path / "a.parquet", rows(web, count, path="/slow/0.05/{}.jpg"))
    given = [
        "--docs-per-shard",
        "1",
        "--layout",
        "pairs",
        "--allow-private-hosts",
        "--workers",
        "0",
    ]
    command = [*cli("convert-laion"), str(source), "--output", str(tmp_path / "out"), *given]
    process = start([*command, "--per-host", "2"])
    wait_for(process, tmp_path / "out", 5)
    os.kill(process.pid, how)
    process.communicate()
    assert process.returncode == (3 if how == signal.SIGINT else -9)
    check_nothing_half_written(tmp_path / "out")
    done = run_cli(command)
    assert done.returncode == 0, done.stderr
    assert leftovers(tmp_path / "out") == []
    convert_laion(
        options(source, tmp_path / "once", docs_per_shard=1, layout="pairs", per_host=16),
        quiet=True,
    )
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "once")


@pytest.mark.matrix
@pytest.mark.slow
def test_a_retry_that_is_killed_goes_on(web: Web, tmp_path: Path) -> None:
    count = 60
    source = write(tmp_path / "a.parquet", rows(web, count, path="/flaky/1/{}.jpg"))
    given = ["--docs-per-shard", "1", "--allow-private-hosts", "--workers", "0", "--retries", "0"]
    command = [*cli("convert-laion"), str(source), "--output", str(tmp_path / "out"), *given]
    assert run_cli(command).returncode == 0
    process = start([*command, "--retry-failed", "--per-host", "1"])
    wait_for(process, tmp_path / "out", 5)
    process.kill()
    process.communicate()
    assert not (tmp_path / "out" / "manifest.json").exists()
    check_nothing_half_written(tmp_path / "out")
    done = run_cli([*command, "--retry-failed"])
    assert done.returncode == 0, done.stderr
    convert_laion(options(source, tmp_path / "once", docs_per_shard=1), quiet=True)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "once")


@pytest.mark.matrix
@pytest.mark.slow
@pytest.mark.ray
def test_workers_of_ray_write_the_same_bytes(web: Web, tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet", rows(web, 12))
    others = write(tmp_path / "b.jsonl", rows(web, 12))
    given = {"docs_per_shard": 5, "layout": "pairs"}
    for name, workers in (("ray", 2), ("here", 0)):
        both = [source, others]
        result = convert_laion(options(both, tmp_path / name, **given, workers=workers), quiet=True)
        assert (result.exit_code, result.tally.images) == (0, 24)
    assert bytes_of(tmp_path / "ray") == bytes_of(tmp_path / "here")


@pytest.mark.matrix
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_img2dataset_fetches_the_same_images(web: Web, tmp_path: Path) -> None:
    table = [*rows(web, 6), {"URL": web.url("/404"), "TEXT": "gone"}]
    table += [{"URL": url, "TEXT": "no"} for url in ("file:///etc/passwd", "ftp://x/a.jpg")]
    source = write(tmp_path / "a.parquet", table)
    for name, fetcher in (("theirs", "img2dataset"), ("ours", "native")):
        given = {"layout": "pairs", "fetcher": fetcher}
        result = convert_laion(options(source, tmp_path / name, **given), quiet=True)
        assert (result.exit_code, result.tally.images) == (0, 6)
    assert pairs(tmp_path / "theirs") == pairs(tmp_path / "ours")
    statuses = [row["status"] for row in outcomes(tmp_path / "theirs")]
    assert statuses == ["ok"] * 6 + ["http-error", "bad-url", "bad-url"]


@pytest.mark.parametrize("layout", ["interleaved", "pairs"])
def test_a_split_asks_for_its_own_rows_and_is_retried_alone(
    web: Web, tmp_path: Path, layout: str
) -> None:
    table = [{**row, "SITE": f"s{k % 5}"} for k, row in enumerate(mixed(web, 40))]
    table += [{"URL": "", "TEXT": "no URL", "similarity": 0.3, "SITE": "s0"}]
    table += [{"URL": web.url("/ok/x.jpg"), "TEXT": "low", "similarity": 0.0, "SITE": "s1"}]
    source = write(tmp_path / "a.parquet", table)
    given: dict[str, Any] = {"layout": layout, "split": "train=0.5,val=0.5", "split_by": "SITE"}
    given |= {"docs_per_shard": 10, "min_caption_similarity": 0.1}
    result = convert_laion(options(source, tmp_path / "out", **given), quiet=True)
    assert result.tally.records == 42
    assert result.tally.documents_dropped["no-url"] == 1
    assert result.tally.documents_dropped["low-caption-similarity"] == 1
    assert max(web.asked().values()) == 1  # of no row twice, in whichever split
    assert "/ok/x.jpg" not in web.asked()
    parts = [pairs(tmp_path / "out" / name) for name in ("train", "val")]
    assert all(parts)
    assert not parts[0].keys() & parts[1].keys()
    sites = [{table[int(key)]["SITE"] for key in part} for part in parts]
    assert not sites[0] & sites[1]

    again = convert_laion(options(source, tmp_path / "out", **given, retry_failed=True), quiet=True)
    assert again.complete
    assert again.tally.documents == result.tally.documents + 10
    for name in ("train", "val"):
        report = validate(Validate(shards=(str(tmp_path / "out" / name),), workers=0))
        assert report.exit_code == 0
