"""convert-mmc4 as a whole: equal bytes however it runs, resume, refusals, counts that add up."""

import base64
import io
import json
import os
import socket
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.optimize import linear_sum_assignment

from mmdata.errors import MMDataError, UserError
from mmdata.storage.lease import Lease
from pipelines.conversion.result import ConversionResult
from pipelines.mmc4.run import convert_mmc4
from tests.corpus import (
    ROOT,
    Corpus,
    check_nothing_half_written,
    document,
    documents_of,
    image_bytes,
    leftovers,
    lines,
    make_corpus,
    manifest_of,
    one_file,
    pack,
    picture,
    rejects_of,
    run_cli,
    snapshot,
)


def convert(corpus: Corpus, output: Path, **more: Any) -> ConversionResult:
    return convert_mmc4(corpus.options(output, **more), quiet=True)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return make_corpus(tmp_path, records=24, files=3)


# --- equal bytes, however it is run


@pytest.mark.slow
@pytest.mark.ray
def test_workers_make_no_difference(corpus: Corpus, tmp_path: Path) -> None:
    """Shards, samples tables, rejects, sidecars, sizes and manifest are equal to the byte."""
    convert(corpus, tmp_path / "w0", docs_per_shard=3)
    reference = snapshot(tmp_path / "w0")
    assert len([name for name in reference if name.endswith(".tar")]) == 9
    for workers in (1, 2):
        output = tmp_path / f"w{workers}"
        done = run_cli(corpus.command(output, "--docs-per-shard", "3", "--workers", str(workers)))
        assert done.returncode == 0, done.stderr
        assert snapshot(output) == reference


def test_where_the_inputs_lie_makes_no_difference(tmp_path: Path) -> None:
    for name in ("here", "elsewhere"):
        corpus = make_corpus(tmp_path / name, records=10)
        convert(corpus, tmp_path / f"{name}-out")
    assert snapshot(tmp_path / "here-out") == snapshot(tmp_path / "elsewhere-out")


def test_a_relative_output_and_paths_with_odd_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brackets, spaces, `::`, braces and non-ASCII letters are letters like any other."""
    folder = tmp_path / "a [b]::c {d} é" / "[" / "bold]"
    folder.mkdir(parents=True)
    corpus = make_corpus(folder, records=6)
    monkeypatch.chdir(folder)
    names = [os.path.basename(path) for path in corpus.docs]
    (folder / "out [").mkdir()
    done = run_cli(Corpus(tuple(names), "images", 6).command("out [/red]"), cwd=folder)
    assert done.returncode == 0, done.stderr
    convert(corpus, tmp_path / "plain")
    assert snapshot(folder / "out [/red]") == snapshot(tmp_path / "plain")


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_the_compression_of_an_input_changes_nothing_in_its_samples(
    suffix: str, tmp_path: Path
) -> None:
    for name, ending in (("zip", ".jsonl.zip"), ("other", suffix)):
        corpus = make_corpus(tmp_path / name, records=8, suffix=ending)
        convert(corpus, tmp_path / f"{name}-out")
    for shard in ("000000000.tar", "000000001.tar"):
        zipped, other = (tmp_path / f"{name}-out" / shard for name in ("zip", "other"))
        assert zipped.read_bytes() == other.read_bytes()


def test_the_order_of_inputs_is_the_order_of_samples(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, records=8)
    convert(corpus, tmp_path / "out")
    turned = Corpus(corpus.docs[::-1], corpus.images, corpus.num_records)
    convert(turned, tmp_path / "turned")
    urls = [
        [d["url"] for d in documents_of(tmp_path / name).values()] for name in ("out", "turned")
    ]
    assert urls[0] != urls[1]
    assert sorted(urls[0]) == sorted(urls[1])


# --- what is in a shard


def test_keys_are_ordinals_of_records_in_the_whole_input(corpus: Corpus, tmp_path: Path) -> None:
    convert(corpus, tmp_path / "out", docs_per_shard=5)
    convert(corpus, tmp_path / "prefixed", docs_per_shard=5, key_prefix="mmc4-a_")
    keys = list(documents_of(tmp_path / "out"))
    dropped = [r["key"] for r in rejects_of(tmp_path / "out") if r["action"] == "dropped-document"]
    assert sorted(keys + dropped) == [f"{ordinal:012d}" for ordinal in range(24)]
    assert list(documents_of(tmp_path / "prefixed")) == [f"mmc4-a_{key}" for key in keys]


def test_images_pass_through_to_the_byte(corpus: Corpus, tmp_path: Path) -> None:
    convert(corpus, tmp_path / "out")
    infos = [i for d in documents_of(tmp_path / "out").values() for i in d["image_info"]]
    assert infos
    originals = {path.name: path.read_bytes() for path in Path(corpus.images).rglob("*.jpg")}
    for info in infos:
        assert image_bytes(info) == originals[info["image_name"]]


def test_rows_of_the_matrix_follow_the_images_in_sentence_order(
    corpus: Corpus, tmp_path: Path
) -> None:
    convert(corpus, tmp_path / "out")
    found = documents_of(tmp_path / "out")
    for sample in found.values():
        place = int(sample["url"].rpartition("/")[2])
        source = document(place, images=[f"{place:04d}_{k}.jpg" for k in range(2)])
        rows = {
            info["image_name"]: row
            for info, row in zip(source["image_info"], source["similarity_matrix"], strict=True)
        }
        matched = [info["matched_text_index"] for info in sample["image_info"]]
        assert matched == sorted(matched)
        for info, row in zip(sample["image_info"], sample["similarity_matrix"], strict=True):
            assert row == rows[info["image_name"]]
            assert info["matched_sim"] == row[info["matched_text_index"]]
        matrix = np.array(sample["similarity_matrix"])
        best = matrix[linear_sum_assignment(matrix, maximize=True)].sum()
        assert abs(sum(info["matched_sim"] for info in sample["image_info"]) - best) < 1e-6


def test_what_the_source_says_besides_survives_to_the_byte(tmp_path: Path) -> None:
    record = document(0, images=["ok0.jpg"])
    text = json.dumps(record)[:-1] + (
        ', "huge": 12345678901234567890123456789012345678901, "exact": 0.10000000000000000001,'
        ' "escaped": "\\u00e9\\ud83d\\ude00 \\/", "nested": {"a": [1 , {"b":  null}]}, "": 0}'
    )
    text = text.replace('"face_detections": null', '"face_detections": [1e0, 2.50], "x.y": 1E+2')
    corpus = one_file(tmp_path, [text.encode()])
    convert(corpus, tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "000000000.tar") as archive:
        file = archive.extractfile("000000000000.json")
        assert file is not None
        raw = file.read().decode()
    for piece in (
        '"huge":12345678901234567890123456789012345678901,',
        '"exact":0.10000000000000000001,',
        '"escaped":"\\u00e9\\ud83d\\ude00 \\/",',
        '"nested":{"a": [1 , {"b":  null}]},',
        '"":0',
        '"face_detections":[1e0, 2.50],',
        '"x.y":1E+2,',
        f'"raw_url":"{record["image_info"][0]["raw_url"]}"',
    ):
        assert piece in raw


def test_fields_of_ours_win_over_fields_of_that_name(tmp_path: Path) -> None:
    record = document(0, images=["ok0.jpg"], format_version="9", alignment="given")
    record["image_info"][0] |= {"image_base64": "eA==", "width": -1, "sha256": "x", "format": "?"}
    convert(one_file(tmp_path, [record]), tmp_path / "out")
    sample = documents_of(tmp_path / "out")["000000000000"]
    info = sample["image_info"][0]
    assert (sample["format_version"], sample["alignment"]) == ("1", "assigned")
    assert (info["width"], info["height"], info["format"]) == (48, 36, "jpeg")
    assert image_bytes(info) == picture(0)


def test_the_samples_table_finds_every_sample_by_offset(corpus: Corpus, tmp_path: Path) -> None:
    convert(corpus, tmp_path / "out", docs_per_shard=4)
    seen = 0
    for path in sorted((tmp_path / "out").glob("*.samples.parquet")):
        tar = path.with_name(path.name.replace(".samples.parquet", ".tar")).read_bytes()
        for row in pq.read_table(path).to_pylist():
            sample = json.loads(tar[row["offset"] : row["offset"] + row["size"]])
            assert row["matched"] == [i["matched_text_index"] for i in sample["image_info"]]
            assert row["image_sha256"] == [i["sha256"] for i in sample["image_info"]]
            assert row["sentences"] == len(sample["text_list"])
            seen += 1
    assert seen == len(documents_of(tmp_path / "out"))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_same_samples(corpus: Corpus, tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset", exc_type=ImportError)
    convert(corpus, tmp_path / "out", docs_per_shard=10)
    shards = str(tmp_path / "out" / "{000000000..000000002}.tar")
    read = {
        sample["__key__"]: json.loads(sample["json"])
        for sample in wds.WebDataset(shards, shardshuffle=False)
    }
    assert read == documents_of(tmp_path / "out")


def test_openflamingos_reading_pairs_each_picture_with_its_sentence(tmp_path: Path) -> None:
    """Its loader stacks images as listed and writes `<image>` tags in the order of sentences."""
    colours = {"red.png": (255, 0, 0), "green.png": (0, 255, 0), "blue.png": (0, 0, 255)}
    files = {}
    for name, colour in colours.items():
        sink = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(sink, "PNG")
        files[name] = sink.getvalue()
    record = document(0, images=["red.png", "green.png", "blue.png"], sentences=3)
    record["text_list"] = ["It is blue.", "It is red.", "It is green."]
    record["similarity_matrix"] = [[0.1, 0.4, 0.2], [0.2, 0.1, 0.4], [0.4, 0.2, 0.1]]
    convert(one_file(tmp_path, [record], files), tmp_path / "out")
    sample = documents_of(tmp_path / "out")["000000000000"]
    stacked = [
        Image.open(io.BytesIO(base64.b64decode(info["image_base64"]))).getpixel((0, 0))
        for info in sample["image_info"]
    ]
    tagged = sorted(info["matched_text_index"] for info in sample["image_info"])
    sentences = [sample["text_list"][index] for index in tagged]
    paired = dict(zip(sentences, stacked, strict=True))
    assert paired["It is red."] == (255, 0, 0)
    assert paired["It is green."] == (0, 255, 0)
    assert paired["It is blue."] == (0, 0, 255)


# --- counts


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"on_missing": "drop-document"},
        {"keep_text_only": True, "min_similarity": 0.39},
        {"min_similarity": 0.35},
        {"min_bytes": 10**9},
        {"max_document_bytes": 5_000},
        {"drop_duplicate_images": True},
    ],
)
def test_what_came_in_is_what_went_out_and_what_was_dropped(
    more: dict[str, Any], corpus: Corpus, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    tally = convert(corpus, output, docs_per_shard=7, **more).tally
    assert tally.records == 24 == tally.documents + sum(tally.documents_dropped.values())
    assert tally.images_listed == tally.images + sum(tally.images_dropped.values())
    documents = documents_of(output)
    assert len(documents) == tally.documents
    assert sum(len(d["image_info"]) for d in documents.values()) == tally.images
    rejects = rejects_of(output)
    for action, counts in (
        ("dropped-document", tally.documents_dropped),
        ("dropped-image", tally.images_dropped),
    ):
        reasons = [line["reason"] for line in rejects if line["action"] == action]
        assert {reason: reasons.count(reason) for reason in reasons} == counts
    manifest = manifest_of(output)
    sidecars = [json.loads((output / row["sidecar"]).read_text()) for row in manifest["shards"]]
    for name in ("records", "documents", "images", "images_listed", "sentences", "image_bytes"):
        total = sum(sidecar["tally"][name] for sidecar in sidecars)
        assert manifest["totals"][name] == total == getattr(tally, name)
    spans = [span for sidecar in sidecars for span in sidecar["source"]]
    assert sum(span["num_records"] for span in spans) == 24
    sizes = json.loads((output / "sizes.json").read_text())
    assert sizes == {row["shard"]: row["samples"] for row in manifest["shards"]}
    check_nothing_half_written(output)


def test_on_missing_error_fails_the_unit_and_names_the_record(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, records=10, files=2)
    done = run_cli(corpus.command(tmp_path / "out", "--on-missing", "error"))
    assert done.returncode == 1
    assert "docs_no_face_shard_0_v2.jsonl: record 2: image 0 (0004_0.jpg): missing" in done.stdout
    assert "2 units failed, 2 shards are left" in done.stdout
    assert leftovers(tmp_path / "out") == []
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_document_left_without_images_can_be_kept(tmp_path: Path) -> None:
    records = [document(0, images=[]), document(1, images=["gone.jpg"])]
    records.append(document(2, images=["ok0.jpg"]))
    corpus = one_file(tmp_path, records)
    assert convert(corpus, tmp_path / "a").tally.documents == 1
    assert convert(corpus, tmp_path / "b", keep_text_only=True).tally.documents == 3
    kept = documents_of(tmp_path / "b")["000000000001"]
    assert (kept["image_info"], kept["similarity_matrix"]) == ([], [])


def test_an_input_without_any_of_its_images_is_refused_with_the_places(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, records=4, files=1)
    for path in Path(corpus.images).rglob("*.jpg"):
        path.unlink()
    done = run_cli(corpus.command(tmp_path / "out"))
    assert done.returncode == 2
    assert "none of its 8 images was found in " in done.stderr
    assert "; fetch them with `mmdata fetch-images`, say where they are with" in done.stderr
    assert f"{corpus.images}/0 or {corpus.images}" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_link_farm_is_refused_before_hours_are_spent_on_it(tmp_path: Path) -> None:
    """Links out of the image folder need --allow-symlinks-to; that shows at once."""
    corpus = make_corpus(tmp_path, records=4, files=1)
    cache = tmp_path / "cache"
    os.rename(Path(corpus.images) / "0", cache)
    (Path(corpus.images) / "0").mkdir()
    for path in cache.iterdir():
        (Path(corpus.images) / "0" / path.name).symlink_to(path)
    assert run_cli(corpus.command(tmp_path / "out")).returncode == 2
    opened = run_cli(corpus.command(tmp_path / "out", "--allow-symlinks-to", str(cache)))
    assert opened.returncode == 0
    assert manifest_of(tmp_path / "out")["totals"]["images"] == 8


def test_image_path_says_where_images_lie(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "in", records=4, files=1)
    convert(corpus, tmp_path / "usual")
    elsewhere = tmp_path / "elsewhere" / "shard-0"
    elsewhere.parent.mkdir()
    os.rename(Path(corpus.images) / "0", elsewhere)
    for number, pattern in enumerate(
        (f"{tmp_path}/elsewhere/shard-{{shard}}/{{image_name}}",
         "../../elsewhere/shard-{shard}/{image_name}")
    ):  # fmt: skip
        output = tmp_path / f"out{number}"
        assert convert(corpus, output, image_path=pattern).tally.images == 8
        assert documents_of(output) == documents_of(tmp_path / "usual")


# --- resume, refusals, overwrite


def times(output: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in output.iterdir() if p.name[0].isdigit()}


def test_the_same_command_again_keeps_what_is_committed(corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "out"
    convert(corpus, output, docs_per_shard=4)
    before, reference = times(output), snapshot(output)
    again = convert(corpus, output, docs_per_shard=4)
    assert (again.shards_kept, again.shards_written) == (6, 0)
    assert times(output) == before
    (output / "000000002.json").unlink()
    (output / "000000004.tar").write_bytes(b"half")
    again = convert(corpus, output, docs_per_shard=4)
    assert (again.shards_kept, again.shards_written, again.complete) == (4, 2, True)
    assert snapshot(output) == reference
    changed = {name[:9] for name, time in times(output).items() if before[name] != time}
    assert changed == {"000000002", "000000004"}


def test_another_conversion_into_the_folder_is_refused_with_the_differences(
    corpus: Corpus, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    convert(corpus, output)
    before = snapshot(output)
    rows = [document(1, images=["0001_0.jpg"])]
    pack(Path(corpus.docs[1]), lines(rows))
    done = run_cli(corpus.command(output, "--docs-per-shard", "5", "--max-pixels", "1000000"))
    assert done.returncode == 2
    assert "holds another conversion; use --overwrite or another folder" in done.stderr
    assert "option docs_per_shard: was 1000, is 5" in done.stderr
    assert "option max_pixels: was 32000000, is 1000000" in done.stderr
    assert "input docs_no_face_shard_1_v2.jsonl.zip: its contents changed" in done.stderr
    assert snapshot(output) == before
    fewer = Corpus(corpus.docs[:1], corpus.images, 8)
    done = run_cli(fewer.command(output))
    assert done.returncode == 2
    assert "input docs_no_face_shard_2_v2.jsonl.zip: gone" in done.stderr
    assert snapshot(output) == before


def test_overwrite_replaces_it_and_leaves_nothing_of_the_old(
    corpus: Corpus, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    convert(corpus, output, docs_per_shard=2)
    convert(corpus, output, docs_per_shard=8, overwrite=True)
    convert(corpus, tmp_path / "fresh", docs_per_shard=8)
    assert snapshot(output) == snapshot(tmp_path / "fresh")


def test_limit_then_the_rest_equals_a_run_at_once(corpus: Corpus, tmp_path: Path) -> None:
    convert(corpus, tmp_path / "whole", docs_per_shard=4)
    first = convert(corpus, tmp_path / "out", docs_per_shard=4, limit=9)
    assert (first.shards_written, first.shards_left, first.limited) == (3, 3, True)
    assert (first.exit_code, first.complete) == (0, False)
    assert not (tmp_path / "out" / "manifest.json").exists()
    done = run_cli(corpus.command(tmp_path / "out", "--docs-per-shard", "4"))
    assert done.returncode == 0
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


def test_num_shards_asks_for_at_least_so_many(corpus: Corpus, tmp_path: Path) -> None:
    result = convert(corpus, tmp_path / "out", num_shards=7)
    assert result.plan.num_shards >= 7
    assert len(list((tmp_path / "out").glob("*.tar"))) == result.plan.num_shards
    with pytest.raises(UserError, match="--num-shards 25: the inputs hold only 24 records"):
        convert(corpus, tmp_path / "more", num_shards=25)


def test_refresh_missing_takes_in_images_that_have_come(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "a", records=12)
    output = tmp_path / "out"
    convert(corpus, output, docs_per_shard=2)
    missing = [line for line in rejects_of(output) if line["reason"] == "missing"]
    assert missing
    for place in (4, 9):
        path = Path(corpus.images) / str(place % 2) / f"{place:04d}_0.jpg"
        path.write_bytes(picture(place))
    before = times(output)
    assert convert(corpus, output, docs_per_shard=2).shards_written == 0
    assert times(output) == before
    result = convert(corpus, output, docs_per_shard=2, refresh_missing=True)
    assert (result.shards_written, result.complete) == (2, True)
    assert result.tally.images_dropped.get("missing", 0) == 0
    convert(corpus, tmp_path / "fresh", docs_per_shard=2)
    assert snapshot(output) == snapshot(tmp_path / "fresh")


def test_verify_committed_finds_a_changed_byte_and_mends_it(corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "out"
    convert(corpus, output, docs_per_shard=4)
    reference = snapshot(output)
    path = output / "000000001.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    assert convert(corpus, output, docs_per_shard=4).shards_written == 0  # its size is right
    result = convert(corpus, output, docs_per_shard=4, verify_committed=True)
    assert (result.shards_kept, result.shards_written) == (5, 1)
    assert snapshot(output) == reference


def test_shards_that_something_else_made_are_left_alone(corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "00000.tar").write_bytes(b"theirs")
    (output / "00001.tar").write_bytes(b"theirs")
    before = snapshot(output)
    done = run_cli(corpus.command(output))
    assert done.returncode == 2
    assert "holds shards without a plan.json (00000.tar and 1 more)" in done.stderr
    assert snapshot(output) == before
    assert [path.name for path in output.iterdir() if path.name == "plan.json"] == []


def test_a_plan_that_cannot_be_read_is_said_to_be_so(corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "plan.json").write_bytes(b'{"format_version": "0"}')
    done = run_cli(corpus.command(output))
    assert done.returncode == 2
    assert "plan.json: not a plan of this version" in done.stderr
    assert "--overwrite" in done.stderr


def test_leftovers_of_a_killed_run_are_swept(corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "out"
    convert(corpus, output)
    left = output / f".000000000.tar.{'ab' * 16}.tmp"
    left.write_bytes(b"half")
    (output / ".mine.tmp").write_bytes(b"the user's")
    convert(corpus, output)
    assert leftovers(output) == [".mine.tmp"]


def test_only_one_run_at_a_time_writes_to_a_folder(corpus: Corpus, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    with Lease(str(output)):
        done = run_cli(corpus.command(output))
    assert done.returncode == 2
    assert f"another run is writing there (process {os.getpid()} on" in done.stderr
    assert socket.gethostname() in done.stderr
    assert list(output.iterdir()) == []
    assert run_cli(corpus.command(output)).returncode == 0


def test_a_dry_run_writes_nothing(corpus: Corpus, tmp_path: Path) -> None:
    done = run_cli(corpus.command(tmp_path / "out", "--dry-run", "--docs-per-shard", "4"))
    assert done.returncode == 0
    assert "images looked for are there" in done.stdout
    assert not (tmp_path / "out").exists()


def test_an_empty_input_gives_an_empty_dataset_with_a_warning(tmp_path: Path) -> None:
    corpus = one_file(tmp_path, [])
    done = run_cli(corpus.command(tmp_path / "out"))
    assert done.returncode == 0
    assert "warning: the inputs hold no records" in done.stdout
    assert manifest_of(tmp_path / "out")["shards"] == []


def test_a_shard_whose_every_record_was_dropped_is_written_empty(tmp_path: Path) -> None:
    corpus = one_file(tmp_path, [b"{", b"[]", document(0, images=["ok0.jpg"])])
    convert(corpus, tmp_path / "out", docs_per_shard=1)
    assert (tmp_path / "out" / "000000000.tar").read_bytes() == bytes(1024)
    assert json.loads((tmp_path / "out" / "sizes.json").read_text()) == {
        "000000000.tar": 0, "000000001.tar": 0, "000000002.tar": 1,
    }  # fmt: skip


@pytest.mark.parametrize("given", ["absolute", "relative", "two spellings"])
def test_an_input_given_twice_is_named(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = make_corpus(tmp_path, records=4, files=2)
    monkeypatch.chdir(tmp_path)
    name = os.path.basename(corpus.docs[0])
    docs = {
        "absolute": (corpus.docs[0], *corpus.docs),
        "relative": (name, os.path.basename(corpus.docs[1]), name),
        "two spellings": (*corpus.docs, name),
    }[given]
    twice = Corpus(docs, corpus.images, 4)
    with pytest.raises(MMDataError, match="is given twice"):
        convert(twice, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_inputs_left_out_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, records=4, files=2)
    bad = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        bad.append(str(pack(tmp_path / name / "docs.jsonl", b"[\n")))
    both = Corpus((*corpus.docs, *bad), corpus.images, 4)
    convert(both, tmp_path / "out", skip_bad_inputs=True)
    excluded = [entry["file"] for entry in manifest_of(tmp_path / "out")["excluded_inputs"]]
    assert excluded == ["a/docs.jsonl", "b/docs.jsonl"]


def test_an_input_that_changed_since_it_was_counted_fails_its_unit(tmp_path: Path) -> None:
    """Same size and time, fewer records: what the plan promised is not there any more."""
    rows = [document(k, images=["ok0.jpg"]) for k in range(4)]
    corpus = one_file(tmp_path, rows)
    output = tmp_path / "out"
    assert convert(corpus, output, docs_per_shard=4, limit=1).complete
    for name in ("000000000.json", "manifest.json"):
        (output / name).unlink()
    path = Path(corpus.docs[0])
    stat = path.stat()
    data = lines(rows)
    second = data.index(b"\n") + 1
    path.write_bytes(data[: second - 1] + b" " + data[second:])  # two records become one line
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    result = convert(corpus, output, docs_per_shard=4)
    assert result.exit_code == 1
    assert "3 records, 4 were counted" in result.failures[0][1].error
    assert not (output / "000000000.json").exists()


def test_an_output_that_is_a_file_is_refused_in_a_line(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    for output in (tmp_path / "out", tmp_path / "out" / "below"):
        done = run_cli(corpus.command(output))
        assert done.returncode == 2
        assert str(tmp_path / "out") in done.stderr


def test_overwrite_keeps_the_old_conversion_when_there_is_no_room_for_the_new(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    convert(corpus, output)
    before = snapshot(output)
    usage = type("Usage", (), {"free": 1})
    monkeypatch.setattr("pipelines.conversion.space.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match="are to be written"):
        convert(corpus, output, docs_per_shard=2, overwrite=True, max_pixels=10**6)
    assert snapshot(output) == before


def test_the_sample_in_examples_converts(tmp_path: Path) -> None:
    sample = ROOT / "examples" / "mmc4"
    if not list(sample.glob("*.jsonl.zip")):
        pytest.skip("no sample here")
    corpus = Corpus((str(sample),), str(sample / "images"), 0)
    result = convert(corpus, tmp_path / "out", docs_per_shard=10)
    with zipfile.ZipFile(sorted(sample.glob("*.zip"))[0]) as archive:
        first = archive.read(archive.namelist()[0]).count(b"\n")
    assert result.exit_code == 0
    assert result.tally.documents > first / 2
    assert result.tally.images > 50
    check_nothing_half_written(tmp_path / "out")
