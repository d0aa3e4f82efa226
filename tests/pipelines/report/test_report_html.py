"""`mmdata report` from shards to page: what it reads, refuses and says; that it scales.

What the page looks like: tests/mmdata/report/.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from mmdata.errors import UserError
from pipelines.laion.run import convert_laion
from pipelines.report.options import Report
from pipelines.report.run import report
from tests.corpus import environment
from tests.laion_factory import options as laion_options
from tests.object_store import ObjectStore
from tests.report_factory import write_report
from tests.shard_factory import (
    Dataset,
    flip,
    make_dataset,
    make_document,
    make_image,
    make_shard_of,
)

#: The synthetic datasets, and what more of them may cost.
FEW_SHARDS, MANY_SHARDS, NUM_DOCUMENTS = 20, 1_000, 200
MAX_GROWTH_MIB = 48
MAX_PAGE_BYTES = 4_000_000


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mmdata.cli", "report", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment())


def test_the_command_writes_a_page_and_names_it(tmp_path: Path) -> None:
    make_dataset(tmp_path / "shards")
    done = run(tmp_path / "shards", "--output", tmp_path / "report.html", "--workers", 0)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/report.html: 6 documents in 2 shards, 6 of them to look at" in done.stdout
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "<h1>shards</h1>" in page


def test_the_way_from_input_to_training_adds_up(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "shards", shards=1, documents=4)
    line = {"action": "dropped-document", "reason": "bad-json", "file": "d.jsonl", "record": 9}
    text = json.dumps(line | {"key": "000000000009", "detail": "at byte 17"}) + "\n"
    dataset.path(0, ".rejects.jsonl").write_text(text * 3, encoding="utf-8")
    dataset.sign()
    write_report(tmp_path / "shards", tmp_path / "r.html", max_images=2, min_similarity=-1.0)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "7 documents: records in the input; 3 dropped, 4 in the shards" in page
    assert "12 images: listed in the input; 0 dropped, 12 in the shards; 4 dropped, 8 used" in page
    assert "d.jsonl, record 9: at byte 17" in page
    assert "the document has more images than the trainer takes" in page


def test_findings_are_looked_for_or_taken_from_a_file_or_left_out(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "shards")
    flip(dataset.path(), 5)
    output = tmp_path / "r.html"
    write_report(tmp_path / "shards", output)
    assert "TAR003" in output.read_text(encoding="utf-8")
    write_report(tmp_path / "shards", output, check="none")
    assert "TAR003" not in output.read_text(encoding="utf-8")
    findings = tmp_path / "findings.json"
    command = ["validate", tmp_path / "shards", "--json", findings, "--workers", 0]
    words = [sys.executable, "-m", "mmdata.cli", *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment())
    assert done.returncode == 1
    write_report(tmp_path / "shards", output, findings=str(findings))
    page = output.read_text(encoding="utf-8")
    assert "TAR003" in page
    assert "--level full" in page


def test_shards_that_cannot_be_read_are_named_and_fail_the_command(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "shards")
    dataset.path(1, ".samples.parquet").write_bytes(b"no table")
    done = run(tmp_path / "shards", "--output", tmp_path / "r.html", "--workers", 0)
    assert done.returncode == 1
    assert "1 shard could not be read" in done.stdout
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Not in the figures: 1 of 2 shards." in page
    assert "not a samples table" in page


def test_several_folders_stand_in_one_page(tmp_path: Path) -> None:
    make_dataset(tmp_path / "one")
    make_dataset(tmp_path / "two", shards=1)
    options = Report(
        shards=(str(tmp_path / "one"), str(tmp_path / "two")), output=str(tmp_path / "r.html")
    )
    result = report(options)
    assert (result.shards, result.documents) == (3, 9)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<h1>one, two</h1>" in page


def test_what_cannot_be_started_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    make_dataset(tmp_path / "shards")
    (tmp_path / "bare").mkdir()
    shutil.copy(tmp_path / "shards/000000000.tar", tmp_path / "bare")
    output = tmp_path / "r.html"
    for shards, options, problem in (
        ("gone", {}, "no such file"),
        ("bare", {}, "mmdata index makes one"),
        ("shards", {"findings": str(tmp_path / "gone.json")}, "--findings .*No such file"),
        ("shards", {"findings": str(tmp_path / "shards/manifest.json")}, "not a report of"),
        ("shards", {"tokenizer": str(tmp_path)}, "--tokenizer"),
        ("shards", {"min_similarity": 24.0}, r"did you mean 0\.24"),
    ):
        with pytest.raises(UserError, match=problem):
            write_report(tmp_path / shards, output, **options)
        assert not output.exists()
    with pytest.raises(UserError, match=r"--output .*No such file"):
        write_report(tmp_path / "shards", tmp_path / "no/such/folder.html")


def test_tokens_are_counted_where_a_tokenizer_is_given(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    make_dataset(tmp_path / "shards")
    output = tmp_path / "r.html"
    write_report(tmp_path / "shards", output)
    assert "Text tokens per document" not in output.read_text(encoding="utf-8")
    write_report(tmp_path / "shards", output, tokenizer=str(tmp_path), documents=2)
    page = output.read_text(encoding="utf-8")
    # Each of the six documents has three sentences of six words.
    assert "Histogram of 6 documents: median 18 · mean 18 · " in page
    assert "from 6 documents" in page
    assert "2 documents of 6 drawn at random" in page


def test_given_documents_are_forecast_as_such(tmp_path: Path) -> None:
    """Two images at one sentence: surplus where it was assigned, structure where it was given."""
    document = make_document(1, images=2, sentences=1)
    document |= {"alignment": "given", "similarity_source": "placeholder"}
    make_shard_of(tmp_path / "given", document)
    write_report(tmp_path / "given", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "2 images: listed in the input; 0 dropped, 2 in the shards; 0 dropped, 2 used" in page


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.matrix
def test_over_ray_it_is_the_same_page(tmp_path: Path) -> None:
    make_dataset(tmp_path / "shards", shards=3)
    for name, workers in (("here.html", 0), ("ray.html", 2)):
        write_report(tmp_path / "shards", tmp_path / name, workers=workers)
    assert (tmp_path / "here.html").read_bytes() == (tmp_path / "ray.html").read_bytes()


@pytest.mark.matrix
@pytest.mark.slow
def test_the_memory_of_a_report_does_not_grow_with_the_shards(tmp_path: Path) -> None:
    """10,000 shards of 1,000 documents took 250 MiB and 19 ms of a core a shard when measured."""
    peaks = []
    for number in (FEW_SHARDS, MANY_SHARDS):
        make_many(tmp_path / str(number), number)
        peaks.append(peak_mib(tmp_path / str(number), number))
    few, many = peaks
    assert many - few < MAX_GROWTH_MIB


def peak_mib(folder: Path, num_shards: int) -> float:
    """Greatest memory of the command over a folder, MiB."""
    script = (
        "import resource, sys\nfrom mmdata.cli.main import main\ncode = main(sys.argv[1:])\n"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\nsys.exit(code)\n"
    )
    command = ["report", folder, "--output", folder / "r.html", "--workers", 0, "--check", "none"]
    words = [sys.executable, "-c", script, *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert f"{num_shards * NUM_DOCUMENTS:,} documents in {num_shards:,} shards" in done.stdout
    assert (folder / "r.html").stat().st_size < MAX_PAGE_BYTES
    peak = re.search(r"peak (\d+)", done.stdout)
    assert peak is not None
    return int(peak[1]) / (2**20 if sys.platform == "darwin" else 2**10)


def make_many(folder: Path, num_shards: int) -> None:
    """Links to one shard under many names: a report reads each as a shard of its own."""
    made: Dataset = make_dataset(folder, shards=1, documents=NUM_DOCUMENTS)
    for number in range(1, num_shards):
        for ending in (".tar", ".samples.parquet", ".rejects.jsonl", ".json"):
            os.link(made.path(0, ending), made.path(number, ending))
    (folder / "manifest.json").unlink()


class TestEveryConversion:
    """What each converter of ours writes is read, pairs with their captions too."""

    @pytest.mark.parametrize("layout", ["interleaved", "pairs"])
    def test_pairs(self, tmp_path: Path, layout: Literal["interleaved", "pairs"]) -> None:
        rows = [
            {"image": {"bytes": make_image(number, width=64), "path": "a.jpg"}}
            | {"TEXT": f"Picture {number}, ü.", "similarity": 0.2 + number / 100}
            for number in range(4)
        ]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "list.parquet")
        shards = tmp_path / "shards"
        convert_laion(laion_options(tmp_path / "list.parquet", shards, layout=layout))
        write_report(shards, tmp_path / "r.html", min_image_bytes=11_000)
        page = (tmp_path / "r.html").read_text(encoding="utf-8")
        assert f"laion, {layout}" in page
        assert page.count('class="problem"') == 0
        assert page.count("<img ") == 4
        assert "Picture 3, ü." in page
        assert "0 dropped, 4 used in training" in page  # of captions, a trainer uses every one

    def test_conversations(self, tmp_path: Path) -> None:
        root = Path(__file__).resolve().parents[3]
        words = f"convert-custom examples/conversations --image-root examples --output {tmp_path}/s"
        done = subprocess.run(
            [sys.executable, "-m", "mmdata.cli", *words.split(), "--workers", "0"],
            capture_output=True,
            text=True,
            cwd=root,
            env=environment(),
        )
        assert done.returncode == 0, done.stderr
        write_report(tmp_path / "s", tmp_path / "r.html")
        page = (tmp_path / "r.html").read_text(encoding="utf-8")
        assert "custom, interleaved" in page
        assert "given, placeholder" in page
        assert "worst" not in page.partition('id="gallery"')[2]  # of placeholders none is
        assert page.count("<img ") == 16


@pytest.mark.slow
def test_shards_in_a_store_are_read_by_ranges_and_the_page_can_go_there(
    object_store: ObjectStore, bucket: str, tmp_path: Path
) -> None:
    make_dataset(tmp_path / "shards")
    object_store.put_folder(tmp_path / "shards", f"{bucket}/shards")
    command = [f"{bucket}/shards", "--output", f"{bucket}/report.html", "--workers", 0]
    done = run(*command, "--title", "T")
    assert done.returncode == 0, done.stderr
    there = object_store.fs.cat_file(f"{bucket}/report.html").decode("utf-8")
    write_report(tmp_path / "shards", tmp_path / "r.html", title="T", min_image_bytes=11_000)
    here = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert there.replace(f"{bucket}/shards", f"{tmp_path}/shards") == here
    assert here.count("<img ") == 18
