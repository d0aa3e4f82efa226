"""`--energon`: the index stands beside each shard, whichever way the shard came about.

Run: pytest tests/pipelines/conversion/test_energon_option.py
"""

import json
from pathlib import Path
from typing import Any

import pytest

from mmdata.shards.energon import write_tar_index
from pipelines.laion.run import convert_laion
from pipelines.mmc4.run import convert_mmc4
from tests.corpus import Corpus, document, make_corpus, one_file, picture
from tests.laion_factory import write


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return make_corpus(tmp_path / "corpus", records=9, files=2)


def convert(corpus: Corpus, output: Path, **more: Any) -> None:
    assert convert_mmc4(corpus.options(output, docs_per_shard=3, **more), quiet=True).complete


def indices(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.glob("*.tar.idx"))}


def check(output: Path) -> None:
    """Every shard has the index that its headers make, and `.nv-meta` counts it."""
    written = indices(output)
    tars = sorted(path.name for path in output.glob("*.tar"))
    assert sorted(written) == [f"{name}.idx" for name in tars]
    for name in tars:
        write_tar_index(str(output / name))
    assert indices(output) == written
    info = json.loads((output / ".nv-meta" / ".info.json").read_text())
    sizes = json.loads((output / "sizes.json").read_text())
    assert info["shard_counts"] == {name: count for name, count in sizes.items() if count}


def test_along_with_each_shard(corpus: Corpus, tmp_path: Path) -> None:
    convert(corpus, tmp_path / "out", energon=True)
    check(tmp_path / "out")


def test_it_changes_no_shard_and_may_come_later(corpus: Corpus, tmp_path: Path) -> None:
    convert(corpus, tmp_path / "out")
    assert indices(tmp_path / "out") == {}
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    options = corpus.options(tmp_path / "out", docs_per_shard=3, energon=True)
    again = convert_mmc4(options, quiet=True)
    assert (again.shards_written, again.complete) == (0, True)
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    check(tmp_path / "out")


def test_nothing_of_it_outlives_the_shards_that_it_is_of(corpus: Corpus, tmp_path: Path) -> None:
    convert(corpus, tmp_path / "out", energon=True)
    convert(corpus, tmp_path / "out", overwrite=True, min_images=1)
    assert indices(tmp_path / "out") == {}
    assert not (tmp_path / "out" / ".nv-meta" / ".info.json").exists()


def test_a_shard_that_is_written_again_gets_its_own(corpus: Corpus, tmp_path: Path) -> None:
    convert(corpus, tmp_path / "out", energon=True)
    (tmp_path / "out" / "000000001.json").unlink()
    convert(corpus, tmp_path / "out")
    assert "000000001.tar.idx" not in indices(tmp_path / "out")
    convert(corpus, tmp_path / "out", energon=True)
    check(tmp_path / "out")


def test_shards_that_duplicates_were_taken_out_of(tmp_path: Path) -> None:
    rows = [document(number % 4, images=["ok0.jpg", "ok1.jpg"]) for number in range(6)]
    corpus = one_file(tmp_path / "corpus", rows)
    convert(corpus, tmp_path / "out", dedupe="exact", energon=True)
    sizes = json.loads((tmp_path / "out" / "sizes.json").read_text())
    assert sum(sizes.values()) == 4
    check(tmp_path / "out")


@pytest.mark.parametrize("layout", ["interleaved", "pairs"])
def test_lists_of_pairs(tmp_path: Path, layout: str) -> None:
    from pipelines.laion.options import ConvertLaion

    rows = [
        {"jpg": picture(n), "caption": f"Picture {n}", "url": f"http://example.org/{n}.jpg"}
        for n in range(5)
    ]
    options = ConvertLaion(
        inputs=(str(write(tmp_path / "a.parquet", rows)),),
        output=str(tmp_path / "out"),
        layout=layout,  # type: ignore[arg-type]
        fetcher="none",
        workers=0,
        docs_per_shard=2,
        energon=True,
    )
    assert convert_laion(options, quiet=True).complete
    check(tmp_path / "out")
