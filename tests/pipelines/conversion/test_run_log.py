"""--log-json: every shard, drop and failure once, in lines that a program can read."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmdata.errors import UserError
from pipelines.mmc4.run import convert_mmc4
from tests.corpus import Corpus, make_corpus, rejects_of, run_cli, snapshot
from tests.pipelines.conversion.test_dedupe import make as make_with_duplicates


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def of_kind(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == kind]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return make_corpus(tmp_path / "in", records=24, files=3)


def test_shards_and_drops_are_written_down(corpus: Corpus, tmp_path: Path) -> None:
    log, output = tmp_path / "log.jsonl", tmp_path / "out"
    options = corpus.options(output, docs_per_shard=4, log_json=str(log))
    result = convert_mmc4(options, quiet=True)
    lines = events(log)
    assert [lines[0]["event"], lines[-1]["event"]] == ["start", "end"]
    assert all(line["time"].endswith("+00:00") for line in lines)
    shards = of_kind(lines, "shard")
    assert sorted(line["shard"] for line in shards) == [f"{k:09d}.tar" for k in range(6)]
    assert sum(line["documents"] for line in shards) == result.tally.documents
    told = [{k: v for k, v in line.items() if k not in ("time", "event", "shard")}
            for line in of_kind(lines, "reject")]  # fmt: skip
    assert sorted(map(json.dumps, told)) == sorted(map(json.dumps, rejects_of(output)))
    assert lines[-1]["totals"]["images"] == result.tally.images
    assert (lines[-1]["exit_code"], lines[-1]["complete"]) == (0, True)


def test_the_log_changes_nothing_in_the_output(corpus: Corpus, tmp_path: Path) -> None:
    convert_mmc4(corpus.options(tmp_path / "a"), quiet=True)
    convert_mmc4(corpus.options(tmp_path / "b", log_json=str(tmp_path / "log")), quiet=True)
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")


def test_a_resume_appends(corpus: Corpus, tmp_path: Path) -> None:
    log, output = tmp_path / "log.jsonl", tmp_path / "out"
    for more in ({"limit": 9}, {}):
        convert_mmc4(
            corpus.options(output, docs_per_shard=4, log_json=str(log), **more), quiet=True
        )
    lines = events(log)
    assert [line["complete"] for line in of_kind(lines, "end")] == [False, True]
    assert len({line["shard"] for line in of_kind(lines, "shard")}) == 6
    assert len(of_kind(lines, "shard")) == 6


def test_a_failure_is_written_down(corpus: Corpus, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    options = corpus.options(tmp_path / "out", on_missing="error", log_json=str(log))
    assert convert_mmc4(options, quiet=True).exit_code == 1
    lines = events(log)
    assert len(of_kind(lines, "failure")) == 3
    assert "image 0" in of_kind(lines, "failure")[0]["error"]


def test_duplicates_are_written_down(tmp_path: Path) -> None:
    corpus = make_with_duplicates(tmp_path / "in", records=12, distinct=4)
    log = tmp_path / "log.jsonl"
    options = corpus.options(tmp_path / "out", docs_per_shard=2, dedupe="exact", log_json=str(log))
    convert_mmc4(options, quiet=True)
    reasons = [line["reason"] for line in of_kind(events(log), "reject")]
    assert reasons.count("duplicate-document") == 8
    assert all(line["draft"] for line in of_kind(events(log), "shard"))


def test_a_log_that_cannot_be_written_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--log-json .*: cannot be written"):
        convert_mmc4(corpus.options(tmp_path / "out", log_json=str(tmp_path)), quiet=True)


def test_a_dry_run_tells_time_and_space_and_writes_nothing(corpus: Corpus, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    done = run_cli(corpus.command(tmp_path / "out", "--dry-run", "--log-json", str(log)))
    assert done.returncode == 0
    assert "free on that disk" in done.stdout
    assert "time on 1 core (rough)" in done.stdout
    assert not (tmp_path / "out").exists()
    assert not log.exists()
