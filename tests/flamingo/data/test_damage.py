"""Damaged samples are skipped, counted and reported; too many stop the run, with examples."""

import logging
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from flamingo.data.damage import DamageCount
from flamingo.data.stream import Stream
from mmdata.errors import BadInputError
from mmdata.training_view.sequence import MediaTokenizer
from tests.shard_factory import Dataset

from .conftest import config_of, make_page, write_pages


def test_a_member_that_is_not_where_the_table_says_is_counted(
    pages: Dataset, tokenizer: MediaTokenizer
) -> None:
    """A header of the tar is overwritten; the table and the manifest know nothing of it."""
    row = pages.read_samples(1)[3]
    with pages.path(1).open("r+b") as file:
        file.seek(row["offset"] - 512)
        file.write(b"gone")
    stream = Stream(config_of(pages.folder), tokenizer, validation=True)
    used = [key for batch in stream.batches() for key in batch.keys]
    assert len(used) == 34
    assert row["key"] not in used
    assert stream.drops == {"document:damaged": 1}


def test_each_epoch_ends_with_a_report(
    tmp_path: Path, tokenizer: MediaTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    documents = [make_page(number, [0, 1]) for number in range(20)]
    pages = write_pages(tmp_path, [[*documents[:10], b"{broken"], documents[10:]])
    stream = Stream(config_of(pages.folder, batch_size=5), tokenizer)
    with caplog.at_level(logging.WARNING):
        list(islice(stream.batches(), 9))
    told = [one.getMessage() for one in caplog.records]
    assert len(told) == 2
    assert "stream mmc4: 1 of 21 samples of the epoch are damaged" in told[0]
    assert "bad-record 1" in told[0]
    assert "000000000.tar: 000000000010: bad-record" in told[0]


def test_too_many_stop_the_run(tmp_path: Path, tokenizer: MediaTokenizer) -> None:
    documents = [make_page(0, [0, 1]), *[b"{broken"] * 11, make_page(1, [0, 1])]
    pages = write_pages(tmp_path, [documents])
    with pytest.raises(BadInputError) as error:
        list(Stream(config_of(pages.folder), tokenizer, validation=True).batches())
    text = str(error.value)
    assert text.startswith("stream mmc4: 11 of 12 samples are damaged, more than")
    assert "--max-bad-fraction 0.01 allows" in text
    assert text.count("bad-record") == 5  # examples
    lenient = config_of(pages.folder, max_bad_fraction=0.02)
    assert len(list(Stream(lenient, tokenizer, validation=True).batches())) == 1


def test_the_share_is_that_of_all_ranks_together(tmp_path: Path, tokenizer: MediaTokenizer) -> None:
    """Six damaged samples on each of two ranks are no reason to stop for either; twelve are."""
    bad: list[dict[str, Any] | bytes] = [make_page(0, [0, 1]), *[b"{broken"] * 6]
    pages = write_pages(tmp_path, [bad, bad])
    config = config_of(pages.folder, batch_size=1)
    streams = [Stream(config, tokenizer, validation=True, rank=n, world=2) for n in range(2)]
    for stream in streams:
        assert len(list(stream.batches())) == 1
    parts = [stream.damage() for stream in streams]
    for part in parts:
        part.check()
    together = parts[0] + parts[1]
    assert (together.num_read, together.num_bad, len(together.examples)) == (14, 12, 5)
    with pytest.raises(BadInputError, match=r"12 of 14 samples are damaged, more than"):
        together.check()


def test_a_rank_alone_stops_when_its_damage_is_too_much_for_all_of_them() -> None:
    """1% of 1,100 samples is exceeded by 12; of what four such ranks read, by 45."""
    with pytest.raises(BadInputError, match="12 of 1100 samples are damaged"):
        DamageCount("s", 0.01, num_read=1100, num_bad=12).check()
    DamageCount("s", 0.01, num_read=1100, num_bad=44).check(parts=4)
    with pytest.raises(BadInputError, match="45 of 1100"):
        DamageCount("s", 0.01, num_read=1100, num_bad=45).check(parts=4)


def test_none_may_mean_none(tmp_path: Path, tokenizer: MediaTokenizer) -> None:
    page = make_page(0, [0, 1])
    page["image_info"][0]["image_base64"] = "bm90IGFuIGltYWdl"
    pages = write_pages(tmp_path, [[page]])
    strict = config_of(pages.folder, max_bad_fraction=0.0)
    with pytest.raises(BadInputError, match=r"1 of 1 samples are damaged.*image:undecodable"):
        list(Stream(strict, tokenizer, validation=True).batches())


def test_what_selection_leaves_out_is_not_damage(tmp_path: Path, tokenizer: MediaTokenizer) -> None:
    low = [make_page(number, [0], similarity=0.1) for number in range(30)]
    pages = write_pages(tmp_path, [[*low, make_page(30, [0, 1])]])
    strict = config_of(pages.folder, max_bad_fraction=0.0)
    (batch,) = Stream(strict, tokenizer, validation=True).batches()
    assert len(batch) == 1
