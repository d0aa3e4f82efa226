"""What a person reads at the end: in, out, dropped by reason, and what to do next."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipelines.conversion.print import print_conversion
from pipelines.custom.run import convert_custom
from pipelines.mmc4.run import convert_mmc4
from tests.corpus import Corpus, document, make_corpus, one_file
from tests.custom_factory import make_conversations


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
    assert "1 shard was there already and was kept" in printed(
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
    hostile = Path(__file__).parents[2] / "assets" / "hostile_mmc4"
    corpus = Corpus((str(hostile / "two_jsonl.zip"),), str(hostile / "images"), 2)
    text = printed(corpus, tmp_path / "out")
    assert "note: two_jsonl.zip holds 2 .jsonl members; all are read" in text


def test_document_of_the_factory_is_good(tmp_path: Path) -> None:
    corpus = one_file(tmp_path, [document(0, images=["ok0.jpg"])])
    assert "dropped, and kept with a remark" not in printed(corpus, tmp_path / "out")


def test_a_dry_run_of_a_split_says_what_is_read_and_what_stays(tmp_path: Path) -> None:
    """Shards of a tenth of the records hold as many documents as without a split."""
    corpus = make_corpus(tmp_path, records=20)
    text = printed(corpus, tmp_path / "o", dry_run=True, split="train=0.9,val=0.1")
    reads = [line for line in text.splitlines() if "records read for a shard, at most" in line]
    kept = [line for line in text.splitlines() if "of them in it, about" in line]
    assert [line.split()[-2] for line in reads] == ["1,112", "10,000"]
    assert [line.split()[-2] for line in kept] == ["1,000", "1,000"]


def test_a_place_that_is_hidden_leaves_no_brackets_behind(tmp_path: Path) -> None:
    given = make_conversations(tmp_path, records=4, files=1)
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    options = given.options(tmp_path / "o", dry_run=True, pseudonymise=True, pseudonym_key=str(key))
    sink = io.StringIO()
    print_conversion(convert_custom(options, quiet=True), Console(file=sink, width=200))
    (line,) = [one for one in sink.getvalue().splitlines() if "looked for are there" in one]
    assert line.endswith(": 4 records; 7 of 7 images looked for are there")


@pytest.mark.parametrize(("number", "said"), [(1, "wrote 1 shard in "), (2, "wrote 2 shards in ")])
def test_one_shard_is_one_shard(tmp_path: Path, number: int, said: str) -> None:
    text = printed(make_corpus(tmp_path, records=4, files=1), tmp_path / "o", num_shards=number)
    assert said in text
    assert f"\n{number} shard{'s' if number > 1 else ''}: a trainer wants at least" in text
