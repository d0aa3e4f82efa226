"""convert-laion from and to an object store: the bytes of a disk, and retries there too."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.laion.run import convert_laion
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.corpus import snapshot
from tests.laion_factory import options, rows, write
from tests.object_store import ObjectStore
from tests.web import Web, serve

pytestmark = pytest.mark.slow


@pytest.fixture
def web() -> Iterator[Web]:
    with serve() as running:
        yield running


def without_times(files: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in files.items() if "outcomes" not in name}


@pytest.mark.parametrize("layout", ["interleaved", "pairs"])
def test_lists_and_shards_may_be_in_a_store(
    object_store: ObjectStore, bucket: str, web: Web, tmp_path: Path, layout: str
) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    write(lists / "a.parquet", rows(web, 5))
    write(lists / "b.csv.gz", rows(web, 3, path="/flaky/1/{}.jpg"))
    write(lists / "c.jsonl", rows(web, 3))
    object_store.put_folder(lists, f"{bucket}/lists")
    given = {"layout": layout, "docs_per_shard": 4}
    local = options(lists, tmp_path / "out", **given)
    there = replace(local, inputs=(f"{bucket}/lists",), output=f"{bucket}/out")
    first = convert_laion(there, quiet=True)
    assert (first.exit_code, first.tally.images) == (0, 8)
    again = convert_laion(replace(there, retry_failed=True), quiet=True)
    assert (again.exit_code, again.tally.images, again.shards_written) == (0, 11, 1)
    report = validate(Validate(shards=(f"{bucket}/out",), workers=0))
    assert report.exit_code == 0
    convert_laion(local, quiet=True)
    here = without_times(snapshot(tmp_path / "out"))
    assert without_times(object_store.snapshot(f"{bucket}/out")) == here
