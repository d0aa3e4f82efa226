"""Every kind of broken MMC4 input gives its one outcome: what is kept, what is dropped, and why."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mmdata.errors import BadInputError
from pipelines.mmc4.run import convert_mmc4
from tests.corpus import (
    ZIP_TIME,
    Corpus,
    documents_of,
    environment,
    lines,
    manifest_of,
    rejects_of,
    run_cli,
)

HOSTILE = Path(__file__).parents[2] / "assets" / "hostile_mmc4"
IMAGES = str(HOSTILE / "images")


class Outcome(NamedTuple):
    """Records and images as they came and as they went out, and the one reason for the rest."""

    records: int
    documents: int
    images_listed: int
    images: int
    document_dropped: str = ""
    image_dropped: str = ""
    note: str = ""


def broken_record(reason: str) -> Outcome:
    """Two good documents around one that is dropped before its images are looked at."""
    return Outcome(3, 2, 4, 4, document_dropped=reason)


def lost_image(reason: str) -> Outcome:
    """Three documents, one of which loses one of its two images."""
    return Outcome(3, 3, 6, 5, image_dropped=reason)


ALL_GOOD = Outcome(3, 3, 6, 6)
TWO_GOOD = Outcome(2, 2, 4, 4)
ONE_GOOD = Outcome(1, 1, 2, 2)
OFF_INDEX = Outcome(3, 3, 6, 6, note="bad-matched-index")

OUTCOMES = {
    "absolute_member": ONE_GOOD,
    "blank_lines": TWO_GOOD,
    "bom": TWO_GOOD,
    "broken_line": broken_record("bad-json"),
    "crlf": TWO_GOOD,
    "duplicate_image_name": ALL_GOOD,
    "duplicate_keys": broken_record("duplicate-keys"),
    "empty": Outcome(0, 0, 0, 0),
    "empty_image_info": broken_record("no-images-listed"),
    "empty_sentence": ALL_GOOD,
    "empty_text_list": broken_record("no-text"),
    "extra_keys": ONE_GOOD,
    "huge_int": ALL_GOOD,
    "image_html_bytes": lost_image("not-an-image"),
    "image_missing": lost_image("missing"),
    "image_name_absolute": lost_image("unsafe-path"),
    "image_name_backslash": lost_image("unsafe-path"),
    "image_name_dot": lost_image("unsafe-path"),
    "image_name_empty": lost_image("missing"),
    "image_name_int": lost_image("missing"),
    "image_name_long": lost_image("missing"),
    "image_name_nul": lost_image("unsafe-path"),
    "image_name_null": lost_image("missing"),
    "image_name_subdir": lost_image("unsafe-path"),
    "image_name_traversal": lost_image("unsafe-path"),
    "image_name_unicode": lost_image("missing"),
    "image_trunc_bytes": lost_image("truncated"),
    "image_zero_bytes": lost_image("truncated"),
    "infinity_similarity": broken_record("non-finite"),
    "junk_first": ONE_GOOD,
    "line_separator": TWO_GOOD,
    "lone_surrogate": broken_record("lone-surrogate"),
    "matched_index_float": OFF_INDEX,
    "matched_index_minus": OFF_INDEX,
    "matched_index_null": OFF_INDEX,
    "matched_index_string": OFF_INDEX,
    "matched_index_too_big": OFF_INDEX,
    "missing_image_info": broken_record("bad-schema"),
    "missing_similarity_matrix": broken_record("no-matrix"),
    "missing_text_list": broken_record("bad-schema"),
    "more_images_than_sentences": ALL_GOOD,
    "nan_similarity": broken_record("non-finite"),
    "no_final_newline_half_line": Outcome(2, 1, 2, 2, document_dropped="bad-json"),
    "not_utf8": broken_record("not-utf8"),
    "nul_char": ALL_GOOD,
    "null_line": broken_record("not-an-object"),
    "one_sentence": ALL_GOOD,
    "ragged_similarity": broken_record("bad-matrix"),
    "similarity_strings": broken_record("bad-matrix"),
    "similarity_wrong_rows": broken_record("bad-matrix"),
    "subdir_member": ONE_GOOD,
    "top_level_list": broken_record("not-an-object"),
    "top_level_string": broken_record("not-an-object"),
    "traversal_member": ONE_GOOD,
    "two_jsonl": TWO_GOOD,
}

REFUSED = {
    "corrupt_data": "damaged: ",
    "empty_archive": "the zip is empty",
    "no_jsonl": "no .jsonl member in the zip (it holds README.txt)",
    "not_a_zip": "is not a .zip file; it looks like plain JSON: name it .jsonl",
    "single_array": "is one JSON array, not JSON lines; write one object a line (jq -c '.[]' does)",
    "truncated": "damaged zip: File is not a zip file; fetch it again",
    "zero_bytes": "the file is empty; fetch it again",
}


def hostile(name: str) -> Corpus:
    """One of the files in the assets."""
    return Corpus((str(HOSTILE / f"{name}.zip"),), IMAGES, 0)


def good_lines() -> list[bytes]:
    """The good documents that stand around the broken ones."""
    with zipfile.ZipFile(HOSTILE / "blank_lines.zip") as archive:
        text = archive.read(archive.namelist()[0])
    return [line for line in text.splitlines() if line.strip()]


def zipped(path: Path, data: bytes) -> Corpus:
    """A zip with one member in MMC4's naming."""
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("docs_no_face_shard_0_v2.jsonl", ZIP_TIME)
        archive.writestr(member, data, zipfile.ZIP_DEFLATED, compresslevel=9)
    return Corpus((str(path),), IMAGES, 0)


def check(corpus: Corpus, expected: Outcome, output: Path, **more: Any) -> None:
    """Convert, and compare counts, manifest, shards and rejects with what is expected."""
    result = convert_mmc4(corpus.options(output, **more), quiet=True)
    tally = result.tally
    assert result.exit_code == 0
    assert not result.failures
    assert expected[:4] == (tally.records, tally.documents, tally.images_listed, tally.images)
    reasons = expected.document_dropped, expected.image_dropped, expected.note
    counts = tally.documents_dropped, tally.images_dropped, tally.notes
    for reason, count in zip(reasons, counts, strict=True):
        assert count == ({reason: 1} if reason else {})
    actions = ("dropped-document", "dropped-image", "kept")
    wanted = [pair for pair in zip(actions, reasons, strict=True) if pair[1]]
    assert [(line["action"], line["reason"]) for line in rejects_of(output)] == wanted
    documents = documents_of(output)
    assert len(documents) == tally.documents
    assert sum(len(found["image_info"]) for found in documents.values()) == tally.images
    assert manifest_of(output)["totals"]["documents"] == tally.documents


def test_every_file_of_the_assets_has_its_outcome_here() -> None:
    assert {path.stem for path in HOSTILE.glob("*.zip")} == OUTCOMES.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", sorted(OUTCOMES))
def test_a_broken_record_costs_itself_only(name: str, tmp_path: Path) -> None:
    check(hostile(name), OUTCOMES[name], tmp_path / "out")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_broken_file_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(BadInputError) as caught:
        convert_mmc4(hostile(name).options(output), quiet=True)
    assert caught.value.exit_code == 2
    assert REFUSED[name] in str(caught.value)
    assert str(HOSTILE / f"{name}.zip") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_names_in_the_data_never_become_paths(tmp_path: Path) -> None:
    """Members and images named `../..` and `/srv/…` leave everything but the output alone."""
    inputs = [hostile(name).docs[0] for name in OUTCOMES if "member" in name or "name" in name]
    output = tmp_path / "a" / "b" / "out"
    done = run_cli(Corpus(tuple(inputs), IMAGES, 0).command(output), cwd=tmp_path)
    assert done.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["out"]
    assert not Path("/srv/evil.jsonl").exists()
    assert all(b"root:" not in path.read_bytes() for path in output.glob("*.tar"))


def test_all_bad_inputs_are_named_at_once(tmp_path: Path) -> None:
    inputs = [hostile(name).docs[0] for name in sorted(REFUSED)]
    inputs += [hostile("bom").docs[0], str(tmp_path / "gone.zip")]
    done = run_cli(Corpus(tuple(inputs), IMAGES, 0).command(tmp_path / "out"))
    assert done.returncode == 2
    for name, problem in REFUSED.items():
        assert f"{name}.zip: " in done.stderr
        assert problem in done.stderr
    assert "gone.zip: no such file" in done.stderr
    assert "8 inputs cannot be used (--skip-bad-inputs leaves them out)" in done.stderr
    assert "bom.zip" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_skip_bad_inputs_leaves_them_out_and_lists_them(tmp_path: Path) -> None:
    inputs = [hostile(name).docs[0] for name in (*sorted(REFUSED), "bom", "crlf")]
    inputs.append(str(tmp_path / "gone.zip"))
    output = tmp_path / "out"
    corpus = Corpus(tuple(inputs), IMAGES, 0)
    done = run_cli(corpus.command(output, "--skip-bad-inputs"))
    assert done.returncode == 0
    excluded = {*(f"{name}.zip" for name in REFUSED), "gone.zip"}
    for record in (manifest_of(output), json.loads((output / "plan.json").read_text())):
        listed = record.get("excluded_inputs") or record["excluded"]
        assert {entry["file"] for entry in listed} == excluded
        assert all(entry["problem"] for entry in listed)
    assert len(documents_of(output)) == 4
    assert all(f"left out: {name}: " in done.stdout for name in excluded)
    again = run_cli(corpus.command(output, "--skip-bad-inputs"))
    assert again.returncode == 0
    assert "2 shards were there already and were kept" in again.stdout


def test_nothing_but_bad_inputs_is_refused_even_when_they_may_be_skipped(tmp_path: Path) -> None:
    command = hostile("truncated").command(tmp_path / "out", "--skip-bad-inputs")
    done = run_cli(command)
    assert done.returncode == 2
    assert "no input is left" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_line_of_five_megabytes_is_a_document_like_any_other(tmp_path: Path) -> None:
    first, last = good_lines()
    long = json.loads(first)
    long["padding"] = "x" * 5_000_000
    corpus = zipped(tmp_path / "five_mb_line.zip", lines([first, long, last]))
    check(corpus, ALL_GOOD, tmp_path / "out")
    assert documents_of(tmp_path / "out")["000000000001"]["padding"] == long["padding"]


@pytest.mark.parametrize("depth", [100, 300, 950, 5_000, 100_000])
def test_nesting_too_deep_for_any_reader_is_dropped(depth: int, tmp_path: Path) -> None:
    """The limit is ours, so that it does not vary with Python's version or its stack."""
    first, last = good_lines()
    deep = first[:-1] + b', "deep": ' + b"[" * depth + b"]" * depth + b"}"
    corpus = zipped(tmp_path / "deep.zip", lines([first, deep, last]))
    check(corpus, broken_record("too-deep"), tmp_path / "out")


def test_nesting_that_readers_take_is_carried_along(tmp_path: Path) -> None:
    first, _ = good_lines()
    deep = first[:-1] + b', "deep": ' + b"[" * 99 + b"]" * 99 + b"}"
    corpus = zipped(tmp_path / "deep.zip", lines([deep]))
    check(corpus, ONE_GOOD, tmp_path / "out")


def test_five_hundred_images_in_one_document(tmp_path: Path) -> None:
    record = json.loads(good_lines()[0])
    record["image_info"] = [record["image_info"][k % 2] for k in range(500)]
    record["similarity_matrix"] = [record["similarity_matrix"][k % 2] for k in range(500)]
    corpus = zipped(tmp_path / "many_images.zip", lines([record]))
    check(corpus, Outcome(1, 1, 500, 500), tmp_path / "out")
    sample = documents_of(tmp_path / "out")["000000000000"]
    matched = [info["matched_text_index"] for info in sample["image_info"]]
    assert matched == sorted(matched)


def test_a_line_longer_than_the_limit_is_passed_over(tmp_path: Path) -> None:
    first, last = good_lines()
    corpus = zipped(tmp_path / "long.zip", lines([first, b"x" * 50_001, last]))
    expected = broken_record("record-too-large")
    check(corpus, expected, tmp_path / "out", max_record_bytes=50_000)
    assert rejects_of(tmp_path / "out")[0]["detail"] == "expected at most 50000 bytes, got 50001"


MEASURED = """
import sys
from mmdata.cli.main import main
code = main(sys.argv[1:])
with open("/proc/self/status") as status:  # ru_maxrss would count the parent's memory at the fork
    print(next(line for line in status if line.startswith("VmHWM")))
sys.exit(code)
"""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def peak_mib(corpus: Corpus, output: Path, *, code: int = 0) -> float:
    """The most memory that a conversion in a fresh process held, MiB; it ends with `code`."""
    command = [sys.executable, "-c", MEASURED, *corpus.command(output, "--workers", "0")[3:]]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=300, check=False
    )
    assert done.returncode == code, done.stderr
    return int(done.stdout.split()[-2]) / 1024


@linux_only
def test_a_zip_bomb_takes_no_memory(tmp_path: Path) -> None:
    """A 120 MB line of one letter, 118 kB zipped, is passed over while it streams by."""
    bomb = zipped(tmp_path / "bomb.zip", b"a" * 120_000_000 + b"\n" + good_lines()[0] + b"\n")
    assert Path(bomb.docs[0]).stat().st_size < 500_000
    assert peak_mib(bomb, tmp_path / "out") < 300
    assert manifest_of(tmp_path / "out")["totals"]["documents_dropped"] == {"record-too-large": 1}
    assert len(documents_of(tmp_path / "out")) == 1


@linux_only
@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "code"),
    [(b'"' + b"a" * 63_000_000 + b'"', 0), (b"[" + b"10," * 21_000_000 + b"10]", 2)],
    ids=["string", "numbers"],
)
def test_the_largest_record_allowed_stays_within_a_workers_memory(
    value: bytes, code: int, tmp_path: Path
) -> None:
    """So many numbers are refused; as they are all that there is, the run does not start."""
    record = good_lines()[0][:-1] + b', "extra": ' + value + b"}"
    path = tmp_path / "large.jsonl"
    path.write_bytes(record + b"\n")
    assert peak_mib(Corpus((str(path),), IMAGES, 1), tmp_path / "out", code=code) < 600
