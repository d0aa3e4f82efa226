"""An input that cannot be entered in the middle is read once for the plan, once for its shards."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmdata.sources import records
from pipelines.mmc4.run import convert_mmc4
from tests.corpus import make_corpus, snapshot


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> "Counter[str]":
    """How often each input was opened to be read from its start."""
    counts: Counter[str] = Counter()
    original: Callable[[records.Segment], Any] = records._open

    def counted(segment: records.Segment) -> Any:
        counts[segment.path] += 1
        return original(segment)

    monkeypatch.setattr(records, "_open", counted)
    return counts


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".jsonl.zip"])
def test_an_archive_is_read_once_and_not_once_a_shard(
    suffix: str, opened: "Counter[str]", tmp_path: Path
) -> None:
    corpus = make_corpus(tmp_path / "in", records=20, files=1, suffix=suffix)
    convert_mmc4(corpus.options(tmp_path / "out", docs_per_shard=1), quiet=True)
    # Counted; its first records asked whether they are of the form at all; converted.
    assert opened == {corpus.docs[0]: 3}
    opened.clear()
    convert_mmc4(corpus.options(tmp_path / "out", docs_per_shard=1), quiet=True)
    assert opened == {}


def test_a_resume_reads_it_once_more(opened: "Counter[str]", tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "in", records=20, files=1, suffix=".jsonl.gz")
    whole = tmp_path / "whole"
    convert_mmc4(corpus.options(whole, docs_per_shard=1), quiet=True)
    convert_mmc4(corpus.options(tmp_path / "out", docs_per_shard=1, limit=7), quiet=True)
    opened.clear()
    convert_mmc4(corpus.options(tmp_path / "out", docs_per_shard=1), quiet=True)
    assert opened == {corpus.docs[0]: 1}
    assert snapshot(tmp_path / "out") == snapshot(whole)
