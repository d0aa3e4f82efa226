"""`validate --level structure` on an object store: ranges alone, and the same findings."""

from pathlib import Path
from typing import Any

import pytest

from mmdata.storage.ranges import RangeBuffer
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from schemas.validation import ValidationReport
from tests.object_store import ObjectStore
from tests.shard_factory import Dataset, flip, make_document

pytestmark = pytest.mark.slow


class TestValidateStructure:
    """Level structure fetches headers and what stands beside the shards, never the data."""

    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Dataset:
        """Two shards whose documents are far larger than their headers."""
        documents: list[list[dict[str, Any] | bytes]] = [
            [make_document(shard * 4 + n) | {"extra": "x" * 300_000} for n in range(4)]
            for shard in range(2)
        ]
        folder = tmp_path / "shards"
        folder.mkdir()
        dataset = Dataset(folder, documents)
        dataset.write()
        return dataset

    def check(self, bucket: str) -> ValidationReport:
        return validate(Validate(shards=(bucket,), level="structure", workers=0))

    def test_of_sound_shards_the_data_stays_where_it_is(
        self,
        object_store: ObjectStore,
        bucket: str,
        dataset: Dataset,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        object_store.put_folder(dataset.folder, bucket)
        fetched = []
        fetch = RangeBuffer._fetch

        def counted(self: RangeBuffer, spans: list[tuple[int, int]]) -> list[bytes]:
            fetched.append(sum(end - start for start, end in spans))
            return fetch(self, spans)

        def refuse(path: str) -> None:
            raise AssertionError(f"{path} is copied whole")

        monkeypatch.setattr(RangeBuffer, "_fetch", counted)
        monkeypatch.setattr("mmdata.validation.shard.local_file", refuse)
        report = self.check(bucket)
        assert (report.findings, report.samples) == ([], 8)
        assert len(fetched) == 2  # one exchange a shard
        assert 0 < sum(fetched) < 20_000 < report.bytes

    @pytest.mark.parametrize("offset", [100, 512 + 307_200, -1], ids=["header", "inside", "end"])
    def test_damage_is_told_as_on_a_disk(
        self, object_store: ObjectStore, bucket: str, dataset: Dataset, offset: int
    ) -> None:
        path = dataset.path(1)
        flip(path, offset % path.stat().st_size)
        object_store.put_folder(dataset.folder, bucket)
        here = validate(Validate(shards=(str(dataset.folder),), level="structure", workers=0))
        there = self.check(bucket)
        assert [(f.code, f.key, f.path, f.got) for f in there.findings] == [
            (f.code, f.key, f.path, f.got) for f in here.findings
        ]
        assert (here.counts == []) == (offset == 512 + 307_200)
