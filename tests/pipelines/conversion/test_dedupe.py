"""--dedupe exact: of equal documents the first stays, however the run went."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import pipelines.conversion.dedupe
from mmdata.shards.naming import shard_of
from pipelines.conversion.dedupe import find_duplicates
from pipelines.conversion.result import ConversionResult
from pipelines.mmc4.run import convert_mmc4
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.corpus import (
    Corpus,
    check_nothing_half_written,
    document,
    documents_of,
    environment,
    leftovers,
    lines,
    manifest_of,
    pack,
    picture,
    rejects_of,
    run_cli,
    snapshot,
)


def make(folder: Path, *, records: int = 30, distinct: int = 10, files: int = 3) -> Corpus:
    """Records that repeat with another URL and other names of the same images.

    Every document has a missing image in front, so that places in the rejects are not trivial, and
    every 4th has a wrong index, which is remarked upon.
    """
    for number in range(files):
        found = folder / "images" / str(number)
        found.mkdir(parents=True)
        rows = []
        for place in range(number, records, files):
            same = place % distinct
            names = [f"gone{place}.jpg", f"{place:04d}_a.jpg", f"{place:04d}_b.jpg"]
            for k, name in enumerate(names[1:]):
                (found / name).write_bytes(picture(same * 10 + k))
            row = document(same, images=names, url=f"https://example.org/page{place}")
            if place % 4 == 0:
                row["image_info"][1]["matched_text_index"] = 99
            rows.append(row)
        pack(folder / f"docs_no_face_shard_{number}_v2.jsonl.zip", lines(rows))
    docs = tuple(str(path) for path in sorted(folder.glob("*.zip")))
    return Corpus(docs, str(folder / "images"), records)


def convert(corpus: Corpus, output: Path, **more: Any) -> ConversionResult:
    given: dict[str, Any] = {"dedupe": "exact", "docs_per_shard": 3}
    return convert_mmc4(corpus.options(output, **(given | more)), quiet=True)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def reference(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("reference") / "out"
    assert convert(corpus, output).complete
    return output


def test_the_first_of_equal_documents_stays(corpus: Corpus, reference: Path) -> None:
    samples = documents_of(reference)
    assert len(samples) == 10
    assert len({json.dumps(sample["text_list"]) for sample in samples.values()}) == 10
    plain = documents_of_plain(corpus, reference.parent / "plain")
    first: dict[str, str] = {}
    for key, sample in sorted(plain.items()):
        first.setdefault(json.dumps(sample["text_list"]), key)
    assert sorted(samples) == sorted(first.values())
    assert all(samples[key] == plain[key] for key in samples)


def documents_of_plain(corpus: Corpus, output: Path) -> dict[str, dict[str, Any]]:
    convert(corpus, output, dedupe="none")
    return documents_of(output)


def test_the_counts_add_up_and_the_shards_are_valid(reference: Path) -> None:
    totals = manifest_of(reference)["totals"]
    assert totals["documents_dropped"] == {"duplicate-document": 20}
    assert totals["documents"] == 10
    assert totals["images"] == 20
    assert totals["images_dropped"] == {"missing": 30, "document-dropped": 40}
    lines_of = rejects_of(reference)
    noted = [line for line in lines_of if line["action"] == "kept"]
    assert totals["notes"].get("bad-matched-index", 0) == len(noted) > 0
    dropped = [line for line in lines_of if line["reason"] == "duplicate-document"]
    kept = set(documents_of(reference))
    assert {line["detail"].split()[2] for line in dropped} <= kept
    for line in dropped:
        images = [one for one in lines_of if one["key"] == line["key"] and one is not line]
        assert [one["image"] for one in images] == ["0", "1", "2"]
        assert [one["reason"] for one in images] == [
            "missing", "document-dropped", "document-dropped",
        ]  # fmt: skip
    assert [line["key"] for line in lines_of] == sorted(line["key"] for line in lines_of)
    report = validate(Validate(shards=(str(reference),), workers=0))
    assert report.exit_code == 0
    check_nothing_half_written(reference)


def test_a_second_run_has_nothing_to_do(corpus: Corpus, reference: Path) -> None:
    before = snapshot(reference)
    result = convert(corpus, reference)
    assert (result.shards_written, result.shards_kept) == (0, 12)
    assert result.complete
    assert snapshot(reference) == before


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.ray
def test_workers_make_no_difference(
    corpus: Corpus, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.conversion.dedupe, "_WORKERS_FROM", 1)
    convert(corpus, tmp_path / "out", workers=2)
    assert snapshot(tmp_path / "out") == snapshot(reference)


def test_partitions_make_no_difference(
    corpus: Corpus, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.conversion.dedupe, "PARTITION_DOCUMENTS", 4)
    convert(corpus, tmp_path / "out")
    assert snapshot(tmp_path / "out") == snapshot(reference)


def test_a_limited_run_goes_on(corpus: Corpus, reference: Path, tmp_path: Path) -> None:
    part = convert(corpus, tmp_path / "out", limit=8)
    assert (part.complete, part.limited, part.failures) == (False, True, [])
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert convert(corpus, tmp_path / "out").complete
    assert snapshot(tmp_path / "out") == snapshot(reference)


@pytest.mark.parametrize("shard", [0, 5, 11])
def test_a_shard_that_is_lost_comes_back(
    shard: int, corpus: Corpus, reference: Path, tmp_path: Path
) -> None:
    """Of a finished conversion; its duplicates are dropped again, no other shard changes."""
    output = tmp_path / "out"
    convert(corpus, output)
    (output / f"{shard:09d}.json").unlink()
    result = convert(corpus, output)
    assert (result.shards_written, result.complete) == (1, True)
    assert snapshot(output) == snapshot(reference)


def test_images_that_come_later_bring_a_duplicate_back(tmp_path: Path) -> None:
    """Two documents are equal while an image of the first is missing, and then no longer."""
    names = ["a.jpg", "late.jpg"]
    rows = [document(0, images=names), document(0, images=["a.jpg", "gone.jpg"])]
    images = tmp_path / "images" / "0"
    images.mkdir(parents=True)
    (images / "a.jpg").write_bytes(picture(1))
    pack(tmp_path / "docs_no_face_shard_0_v2.jsonl", lines(rows))
    corpus = Corpus((str(tmp_path / "docs_no_face_shard_0_v2.jsonl"),), str(images.parent), 2)
    output = tmp_path / "out"
    convert(corpus, output, docs_per_shard=1)
    assert list(documents_of(output)) == ["000000000000"]
    (images / "late.jpg").write_bytes(picture(2))
    convert(corpus, output, docs_per_shard=1, refresh_missing=True)
    assert list(documents_of(output)) == ["000000000000", "000000000001"]
    convert(corpus, tmp_path / "fresh", docs_per_shard=1)
    assert snapshot(output) == snapshot(tmp_path / "fresh")


def test_an_image_twice_in_a_document(tmp_path: Path) -> None:
    row = document(0, images=["a.jpg", "b.jpg", "c.jpg"])
    images = tmp_path / "images" / "0"
    images.mkdir(parents=True)
    for name, seed in (("a.jpg", 1), ("b.jpg", 1), ("c.jpg", 2)):
        (images / name).write_bytes(picture(seed))
    path = pack(tmp_path / "docs_no_face_shard_0_v2.jsonl", lines([row]))
    tally = convert(Corpus((str(path),), str(images.parent), 1), tmp_path / "out").tally
    assert tally.images_dropped == {"duplicate-in-document": 1}


def test_no_duplicates_and_no_documents(tmp_path: Path) -> None:
    corpus = make(tmp_path / "in", records=3, distinct=3)
    assert convert(corpus, tmp_path / "out").tally.documents == 3
    dropped, firsts = find_duplicates(str(tmp_path / "out"), 3, 3)
    assert (len(dropped), len(firsts)) == (0, 0)


def finished(output: Path, final: str) -> int:
    count = 0
    for path in output.glob("[0-9]*.json"):
        try:
            count += shard_of(path.name) is not None and final in path.read_text()
        except FileNotFoundError:  # being written anew
            continue
    return count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "share"),
    [
        (signal.SIGKILL, 0.5),
        pytest.param(signal.SIGKILL, 0.02, marks=pytest.mark.matrix),
        pytest.param(signal.SIGTERM, 0.5, marks=pytest.mark.matrix),
    ],
)
def test_a_kill_in_the_second_phase_leaves_no_trace(
    signum: signal.Signals, share: float, tmp_path: Path
) -> None:
    corpus = make(tmp_path / "in", records=120, distinct=20)
    whole, output = tmp_path / "whole", tmp_path / "out"
    convert(corpus, whole, docs_per_shard=1)
    final = manifest_of(whole)["fingerprint"]
    command = corpus.command(output, "--dedupe", "exact", "--docs-per-shard", "1", "--workers", "0")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    deadline = time.monotonic() + 300
    while finished(output, final) < share * 120:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signum)
    process.communicate()
    assert 0 < finished(output, final) < 120
    assert not (output / "manifest.json").exists()
    check_nothing_half_written(output)
    done = run_cli(command)
    assert done.returncode == 0, done.stderr
    assert snapshot(output) == snapshot(whole)
    assert leftovers(output) == []


# --- the other rules on documents


def test_documents_with_too_few_or_too_many_images(corpus: Corpus, tmp_path: Path) -> None:
    few = convert(corpus, tmp_path / "few", dedupe="none", min_images=3).tally
    assert few.documents_dropped == {"too-few-images": 30}
    assert few.images_dropped == {"missing": 30, "document-dropped": 60}
    most = convert(corpus, tmp_path / "most", dedupe="none", max_images=1)
    assert most.tally.images_dropped == {"missing": 30, "surplus": 30}
    for sample in documents_of(tmp_path / "most").values():
        (row,) = sample["similarity_matrix"]
        assert sample["image_info"][0]["matched_sim"] == max(row)


def test_documents_that_may_repeat_by_their_url(tmp_path: Path) -> None:
    rows = [
        document(k, images=["a.jpg"], could_have_url_duplicate=mark)
        for k, mark in enumerate((0, 1, None, 1))
    ]
    images = tmp_path / "images" / "0"
    images.mkdir(parents=True)
    (images / "a.jpg").write_bytes(picture(1))
    path = pack(tmp_path / "docs_no_face_shard_0_v2.jsonl", lines(rows))
    corpus = Corpus((str(path),), str(images.parent), 4)
    kept = convert(corpus, tmp_path / "a", dedupe="none").tally
    assert kept.documents == 4
    dropped = convert(corpus, tmp_path / "b", dedupe="none", drop_url_duplicates=True).tally
    assert dropped.documents_dropped == {"url-duplicate": 2}
    assert dropped.images_dropped == {"document-dropped": 2}
