"""What a person reads at the end: in, out, dropped by reason, and what to do next."""

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.convert_mmc4 import convert_mmc4
from pipelines.report import print_conversion
from tests.corpus import Corpus, document, make_corpus, one_file


def printed(corpus: Corpus, output: Path, **more: Any) -> str:
    sink = io.StringIO()
    result = convert_mmc4(corpus.options(output, **more), quiet=True)
    print_conversion(result, Console(file=sink, width=200, highlight=False, soft_wrap=True))
    return sink.getvalue()


def cells(text: str, label: str) -> list[str]:
    line = next(line for line in text.splitlines() if label in line)
    return line.replace("│", " ").replace("┃", " ").split()


def test_counts_of_documents_and_images_add_up(tmp_path: Path) -> None:
    text = printed(make_corpus(tmp_path, records=20), tmp_path / "out", docs_per_shard=4)
    assert cells(text, "documents  ")[1:] == ["20", "18", "2"]
    listed, kept, dropped = map(int, cells(text, "images  ")[1:])
    assert listed == kept + dropped
    assert cells(text, "missing")[-1] == str(dropped)
    assert cells(text, "bad-json")[-1] == "2"
    assert "each of them: *.rejects.jsonl beside its shard" in text
    assert "wrote 6 shards in" in text


def test_too_few_shards_for_a_trainer_are_mentioned(tmp_path: Path) -> None:
    text = printed(make_corpus(tmp_path, records=20), tmp_path / "out")
    assert "2 shards: a trainer wants at least ranks x workers of them (--num-shards N" in text
    assert "a trainer wants" not in printed(
        make_corpus(tmp_path / "b", records=20), tmp_path / "many", docs_per_shard=1
    )


def test_what_was_kept_and_what_is_left_is_said(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, records=20)
    text = printed(corpus, tmp_path / "out", docs_per_shard=5, limit=5)
    assert "stopped at --limit: 3 shards are left; run again without it" in text
    assert "1 shards were there already and were kept" in printed(
        corpus, tmp_path / "out", docs_per_shard=5
    )


def test_failures_are_said_with_their_record(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, records=20)
    text = printed(corpus, tmp_path / "out", on_missing="error")
    assert "failed: " in text
    assert "record 2: image 0 (0004_0.jpg): missing" in text
    assert "2 units failed, 2 shards are left; what is written stays; mend the cause" in text


def test_a_run_that_kept_nothing_warns(tmp_path: Path) -> None:
    without = {"text_list": ["a"], "image_info": [], "similarity_matrix": []}
    corpus = one_file(tmp_path, [without, b"{"])
    assert "warning: no document was kept: every shard is empty" in printed(corpus, tmp_path / "o")
    corpus = one_file(tmp_path / "none", [])
    assert "warning: the inputs hold no records" in printed(corpus, tmp_path / "none" / "o")


def test_a_dry_run_shows_the_plan(tmp_path: Path) -> None:
    text = printed(make_corpus(tmp_path, records=20), tmp_path / "o", dry_run=True, num_shards=9)
    assert cells(text, "records  ")[-1] == "20"
    assert int(cells(text, "shards")[-1]) >= 9
    assert "images looked for are there" in text


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    """Brackets in a path are no markup."""
    output = tmp_path / "[bold]out[" / "bold]"
    text = printed(make_corpus(tmp_path, records=6), output, docs_per_shard=1)
    assert str(output) in text
    text = printed(make_corpus(tmp_path / "b", records=6), output.parent / "o", dry_run=True)
    assert str(output.parent / "o") in text


def test_all_members_of_a_zip_are_read_and_that_is_said(tmp_path: Path) -> None:
    hostile = Path(__file__).parents[1] / "assets" / "hostile_mmc4"
    corpus = Corpus((str(hostile / "two_jsonl.zip"),), str(hostile / "images"), 2)
    text = printed(corpus, tmp_path / "out")
    assert "note: two_jsonl.zip holds 2 .jsonl members; all are read" in text


def test_document_of_the_factory_is_good(tmp_path: Path) -> None:
    corpus = one_file(tmp_path, [document(0, images=["ok0.jpg"])])
    assert "dropped, and kept with a remark" not in printed(corpus, tmp_path / "out")
