"""The sums of a report are those of the shards, however the shards are divided among workers."""

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmdata.errors import BadInputError
from mmdata.report.picks import Picks
from mmdata.report.summary import Summary, SummaryTask, summarise
from mmdata.report.tables import SamplesTable
from mmdata.report.training import Alignment
from mmdata.training_view.selection import SelectionPolicy
from tests.shard_factory import Dataset, make_dataset, write_json

EVERYTHING = SelectionPolicy(min_similarity=-1.0, min_image_bytes=0)


def task(paths: list[Path], first: int = 0, policy: SelectionPolicy = EVERYTHING) -> SummaryTask:
    return SummaryTask(
        paths=tuple(map(str, paths)),
        first=first,
        alignment=Alignment(),
        policy=policy,
        num_random=5,
        num_extreme=2,
        seed=1,
    )


def shards(dataset: Dataset) -> list[Path]:
    return [dataset.path(number) for number in range(len(dataset.documents))]


def reject(record: int, action: str = "dropped-document", reason: str = "bad-json") -> str:
    return (
        f'{{"action":"{action}","reason":"{reason}","file":"docs.jsonl","record":{record},'
        f'"key":"{record:012d}"}}\n'
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Four shards of five documents of three images; the last shard dropped two records."""
    made = make_dataset(tmp_path, shards=4, documents=5)
    made.path(3, ".rejects.jsonl").write_text(reject(91) + reject(90), encoding="utf-8")
    made.sign()
    return made


def test_totals_are_those_of_the_shards(dataset: Dataset) -> None:
    summary = summarise(task(shards(dataset)))
    rows = [row for shard in range(4) for row in dataset.read_samples(shard)]
    assert (summary.shards, summary.documents, summary.images) == (4, 20, 60)
    assert summary.sentences == sum(row["sentences"] for row in rows)
    assert summary.text_bytes == sum(row["text_bytes"] for row in rows)
    assert summary.image_bytes == sum(sum(row["image_bytes"]) for row in rows)
    assert summary.formats == {"jpeg": 20, "png": 20, "webp": 20}
    assert summary.distributions["longest_side"].greatest == 24
    assert summary.distributions["shortest_side"].greatest == 16
    assert summary.distributions["similarity"].size == 60
    assert summary.distributions["images"].bins[3] == 20
    assert summary.tar_bytes == sum(path.stat().st_size for path in shards(dataset))


def test_drops_and_their_first_examples_come_from_the_sidecars(dataset: Dataset) -> None:
    summary = summarise(task(shards(dataset)))
    assert summary.tally.records == 22
    assert summary.tally.documents_dropped == {"bad-json": 2}
    examples = summary.examples["dropped-document", "bad-json"]
    assert [example.record for example in examples] == [90, 91]


@pytest.mark.parametrize("cuts", [[1], [2], [1, 2, 3]])
def test_it_does_not_matter_how_shards_are_divided(dataset: Dataset, cuts: list[int]) -> None:
    paths = shards(dataset)
    whole = summarise(task(paths))
    merged = Summary(picks=Picks(num_random=5, num_extreme=2))
    bounds = [0, *cuts, 4]
    parts = [summarise(task(paths[start:end], first=start)) for start, end in pairwise(bounds)]
    for part in parts[::-1]:
        merged.merge(part)
    assert merged.tally == whole.tally
    assert merged.picks == whole.picks
    assert merged.by_shard == whole.by_shard
    assert merged.training == whole.training
    assert merged.examples == whole.examples
    for name, distribution in whole.distributions.items():
        assert merged.distributions[name].bins.tolist() == distribution.bins.tolist()


def test_the_documents_with_the_least_and_greatest_mean_similarity_are_picked(
    dataset: Dataset,
) -> None:
    picks = summarise(task(shards(dataset))).picks
    rows = [row for shard in range(4) for row in dataset.read_samples(shard)]
    ordered = sorted(rows, key=lambda row: sum(row["similarity"]) / len(row["similarity"]))
    assert [pick.row["key"] for pick in picks.worst] == [row["key"] for row in ordered[:2]]
    assert [pick.row["key"] for pick in picks.best] == [row["key"] for row in ordered[:-3:-1]]
    assert len({(pick.shard, pick.row["key"]) for pick in picks.random}) == 5


def test_a_shard_that_cannot_be_read_is_named_and_the_others_count(dataset: Dataset) -> None:
    dataset.path(1, ".samples.parquet").write_bytes(b"PAR1 but not really")
    dataset.path(2, ".samples.parquet").unlink()
    summary = summarise(task(shards(dataset)))
    assert (summary.shards, summary.documents, summary.num_problems) == (2, 10, 2)
    (first, why), (second, absent) = summary.problems
    assert (Path(first).name, Path(second).name) == ("000000001.tar", "000000002.tar")
    assert "not a samples table" in why
    assert "mmdata index" in absent


def test_without_a_sidecar_the_input_is_not_known(dataset: Dataset) -> None:
    dataset.path(0, ".json").unlink()
    write_json(dataset.path(1, ".json"), {"tally": "all of it"})
    summary = summarise(task(shards(dataset)))
    assert (summary.shards, summary.num_sidecars) == (4, 2)


def test_an_empty_shard_is_a_shard(dataset: Dataset) -> None:
    dataset.documents.append([])
    dataset.write()
    summary = summarise(task(shards(dataset)))
    assert (summary.shards, summary.documents) == (5, 20)
    assert summary.by_shard[4] == (0, 0, 0.0)


class TestTable:
    @pytest.mark.parametrize(
        ("column", "values", "problem"),
        [
            ("width", pa.array([[1, 2]], pa.list_(pa.int32())), "`width` and `matched` differ"),
            ("width", pa.array([[1, 2, None]], pa.list_(pa.int32())), "a value of `width`"),
            ("width", pa.array(["wide"]), r"expected `width` to be list<int32>, got string"),
            ("sentences", pa.array([None], pa.int32()), "a value of `sentences` is missing"),
        ],
    )
    def test_what_is_no_samples_table_of_ours_is_said(
        self, tmp_path: Path, column: str, values: pa.Array, problem: str
    ) -> None:
        made = make_dataset(tmp_path, shards=1, documents=1)
        path = made.path(0, ".samples.parquet")
        table = pq.read_table(path)
        index = table.column_names.index(column)
        pq.write_table(table.set_column(index, column, values), path)
        with pytest.raises(BadInputError, match=problem):
            read_all(str(path))

    def test_a_text_that_is_not_utf8_is_said(self, tmp_path: Path) -> None:
        made = make_dataset(tmp_path, shards=1, documents=1)
        path = made.path(0, ".samples.parquet")
        table = pq.read_table(path)
        broken = pa.array([b"\xff\xfe"]).cast(pa.string(), safe=False)
        pq.write_table(table.set_column(0, "key", broken), path)
        with pytest.raises(BadInputError, match="not UTF-8"):
            SamplesTable(str(path)).row(0)

    def test_a_table_in_several_row_groups_is_one(self, tmp_path: Path) -> None:
        made = make_dataset(tmp_path, shards=1, documents=7)
        path = made.path(0, ".samples.parquet")
        pq.write_table(pq.read_table(path), path, row_group_size=2)
        table = SamplesTable(str(path))
        assert table.offsets == [0, 3, 6, 9, 12, 15, 18, 21]
        assert table.row(6)["key"] == "000000000006"


def read_all(path: str) -> None:
    table = SamplesTable(path)
    table.image_rows()
    table.column("width")
