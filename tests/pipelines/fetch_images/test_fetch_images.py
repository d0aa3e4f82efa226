"""fetch-images downloads what documents name into the folder that convert-mmc4 reads."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mmdata.cli.main import main
from mmdata.errors import BadInputError, UserError
from pipelines.fetch_images.options import FetchImages
from pipelines.fetch_images.run import fetch_images
from pipelines.mmc4.options import ConvertMmc4
from pipelines.mmc4.run import convert_mmc4
from tests.corpus import cli, document, lines, pack, picture
from tests.pipelines.laion.test_laion_retry import start
from tests.web import Web, serve


@pytest.fixture
def web() -> Iterator[Web]:
    with serve() as running:
        yield running


def docs(folder: Path, number: int, urls: dict[str, str]) -> Path:
    """A file of documents that names images by URL, two to a document."""
    names = list(urls)
    records: list[Any] = []
    for place in range(0, len(names), 2):
        record = document(place, images=names[place : place + 2])
        for info in record["image_info"]:
            info["raw_url"] = urls[info["image_name"]]
        records.append(record)
    return pack(folder / f"docs_no_face_shard_{number}_v2.jsonl.zip", lines([*records, b"{broken"]))


def options(inputs: list[Path], output: Path, **more: Any) -> FetchImages:
    given: dict[str, Any] = {
        "docs": tuple(map(str, inputs)),
        "output": str(output),
        "workers": 0,
        "allow_private_hosts": True,
        "retries": 0,
    }
    return FetchImages(**(given | more))


def table(output: Path, number: int) -> dict[str, dict[str, Any]]:
    path = output / f"docs_no_face_shard_{number}_v2.outcomes.parquet"
    return {row["key"]: row for row in pq.read_table(path).to_pylist()}


def test_what_is_fetched_is_what_convert_mmc4_finds(web: Web, tmp_path: Path) -> None:
    files = [
        docs(tmp_path, shard, {f"{shard}{k}.jpg": web.url(f"/ok/{k}.jpg") for k in range(4)})
        for shard in (3, 12345)
    ]
    result = fetch_images(options(files, tmp_path / "images"), quiet=True)
    assert (result.exit_code, dict(result.counts)) == (0, {"ok": 8})
    assert (tmp_path / "images" / "12345" / "123451.jpg").read_bytes() == picture(1)
    converted = convert_mmc4(
        ConvertMmc4(
            docs=tuple(map(str, files)),
            images=str(tmp_path / "images"),
            output=str(tmp_path / "out"),
            workers=0,
        ),
        quiet=True,
    )
    assert (converted.exit_code, converted.tally.images) == (0, 8)


def test_every_image_has_an_outcome(web: Web, tmp_path: Path) -> None:
    urls = {
        "a.jpg": web.url("/ok/1.jpg"),
        "b.jpg": web.url("/404"),
        "c.jpg": web.url("/html"),
        "d.jpg": "file:///etc/passwd",
        "../e.jpg": web.url("/ok/2.jpg"),
        "/tmp/f.jpg": web.url("/ok/2.jpg"),
        "g.jpg": "",
        "sub/h.jpg": web.url("/ok/3.jpg"),
    }
    result = fetch_images(options([docs(tmp_path, 0, urls)], tmp_path / "images"), quiet=True)
    found = table(tmp_path / "images", 0)
    assert {name: (row["status"], row["result"]) for name, row in found.items()} == {
        "a.jpg": ("ok", "kept"),
        "b.jpg": ("http-error", "http-error"),
        "c.jpg": ("ok", "not-an-image"),
        "d.jpg": ("bad-url", "bad-url"),
        "../e.jpg": ("not-asked", "unsafe-path"),
        "/tmp/f.jpg": ("not-asked", "unsafe-path"),
        "g.jpg": ("not-asked", "no-url"),
        "sub/h.jpg": ("ok", "kept"),
    }
    assert sum(result.counts.values()) == 8
    there = sorted(path.name for path in (tmp_path / "images").rglob("*.jpg"))
    assert there == ["a.jpg", "h.jpg"]
    assert not (tmp_path / "e.jpg").exists()


def test_a_link_that_leads_out_is_not_written_through(web: Web, tmp_path: Path) -> None:
    (tmp_path / "images" / "0").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "images" / "0" / "sub").symlink_to(tmp_path / "elsewhere")
    path = docs(tmp_path, 0, {"sub/a.jpg": web.url("/ok/1.jpg")})
    result = fetch_images(options([path], tmp_path / "images"), quiet=True)
    assert dict(result.counts) == {"not-asked": 1}
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_done_is_done_and_failures_are_asked_again_when_told(web: Web, tmp_path: Path) -> None:
    urls = {"a.jpg": web.url("/ok/1.jpg"), "b.jpg": web.url("/flaky/1/2.jpg"), "c.jpg": "x:y"}
    path = docs(tmp_path, 0, urls)
    fetch_images(options([path], tmp_path / "images"), quiet=True)
    again = fetch_images(options([path], tmp_path / "images"), quiet=True)
    assert (dict(again.counts), again.files_kept) == ({}, 1)
    assert web.asked()["/flaky/1/2.jpg"] == 1
    retried = fetch_images(options([path], tmp_path / "images", retry_failed=True), quiet=True)
    assert (tmp_path / "images" / "0" / "b.jpg").read_bytes() == picture(2)
    assert web.asked()["/ok/1.jpg"] == 1
    assert retried.counts["ok"] == 1
    assert {row["result"] for row in table(tmp_path / "images", 0).values()} == {"kept", "bad-url"}


def test_where_no_url_may_be_asked_that_is_said_with_the_flag(
    web: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = docs(tmp_path, 0, {"a.jpg": web.url("/ok/1.jpg"), "b.jpg": "file:///etc/passwd"})
    command = ["fetch-images", str(path), "--output", str(tmp_path / "images"), "--workers", "0"]
    assert main(command) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "no URL may be asked, so nothing was fetched; --allow-private-hosts also asks" in said
    assert "only http and https are asked" in said
    assert main([*command, "--allow-private-hosts", "--retry-failed"]) == 0
    assert "no URL may be asked" not in capsys.readouterr().out


def test_inputs_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl.zip").write_bytes(b"no zip")
    with pytest.raises(BadInputError) as caught:
        fetch_images(options([tmp_path / "bad.jsonl.zip", tmp_path / "gone.jsonl"], tmp_path / "o"))
    assert "bad.jsonl.zip" in str(caught.value)
    assert "gone.jsonl: no such file" in str(caught.value)
    with pytest.raises(UserError, match="--retries -1"):
        options([], tmp_path, retries=-1)


@pytest.mark.slow
def test_killed_half_way_it_goes_on(web: Web, tmp_path: Path) -> None:
    urls = {f"{k}.jpg": web.url(f"/slow/0.05/{k}.jpg") for k in range(60)}
    path = docs(tmp_path, 7, urls)
    images = tmp_path / "images"
    command = [*cli("fetch-images"), str(path), "--output", str(images), "--allow-private-hosts"]
    process = start([*command, "--per-host", "1"])
    deadline = time.monotonic() + 300
    while len(list(images.glob("7/*.jpg"))) < 5:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    whole = {found.name for found in images.glob("7/*.jpg")}
    assert all((images / "7" / name).read_bytes() == picture(int(name[:-4])) for name in whole)
    assert not list(images.glob("*.outcomes.parquet"))
    result = fetch_images(options([path], images, per_host=16), quiet=True)
    assert result.counts["there"] == len(whole)
    assert result.counts["ok"] == 60 - len(whole)
    assert [found.name for found in images.glob("7/.*")] == []
    assert set(table(images, 7)) == set(urls)
