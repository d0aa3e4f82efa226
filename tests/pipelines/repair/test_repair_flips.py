"""One flipped bit anywhere costs one sample at most, and what comes out of `repair` is sound.

Run: pytest tests/pipelines/repair/test_repair_flips.py
"""

import random
import shutil
import tempfile
from pathlib import Path

import pytest

from mmdata.errors import BadInputError
from pipelines.repair.options import Repair
from pipelines.repair.run import repair
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.shard_factory import flip, make_dataset, make_pairs

pytestmark = pytest.mark.slow
#: Flips that are tried: by `make test`, and by the matrix.
FLIPS = pytest.mark.parametrize("flips", [24, pytest.param(75, marks=pytest.mark.matrix)])


def offsets(size: int, flips: int, seed: int) -> list[tuple[int, int]]:
    """(byte, mask) of flips: all over the file, and more of them where headers and ends are."""
    rng = random.Random(seed)
    headers = [rng.randrange(512) for _ in range(flips // 3)]
    ends = [size - 1 - rng.randrange(1536) for _ in range(flips // 6)]
    anywhere = [rng.randrange(size) for _ in range(flips - len(headers) - len(ends))]
    return [(place, 1 << rng.randrange(8)) for place in headers + ends + anywhere]


def repaired(shards: Path, output: Path) -> int:
    """Documents that a repair saves; what it writes is checked to the last picture."""
    result = repair(Repair(shards=(str(shards),), output=str(output), workers=0), quiet=True)
    assert result.exit_code == 0
    tally = result.tally
    assert tally.records == tally.documents + sum(tally.documents_dropped.values())
    report = validate(Validate(shards=(str(output),), workers=0))
    assert report.findings == []
    return tally.documents


@FLIPS
@pytest.mark.parametrize("with_table", [True, False])
def test_in_a_shard_of_documents(tmp_path: Path, with_table: bool, flips: int) -> None:
    dataset = make_dataset(tmp_path / "in", shards=1)
    if not with_table:
        dataset.path(0, ".samples.parquet").unlink()
    whole = dataset.path(0).read_bytes()
    for offset, mask in offsets(len(whole), flips, seed=1):
        dataset.path(0).write_bytes(whole)
        flip(dataset.path(0), offset, mask)
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            assert repaired(tmp_path / "in", Path(folder) / "out") >= 2, (offset, mask)


@FLIPS
def test_in_a_samples_table(tmp_path: Path, flips: int) -> None:
    dataset = make_dataset(tmp_path / "in", shards=1)
    table = dataset.path(0, ".samples.parquet")
    whole = table.read_bytes()
    rng = random.Random(2)
    for _ in range(flips * 2 // 5):
        table.write_bytes(whole)
        flip(table, rng.randrange(len(whole)), 1 << rng.randrange(8))
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            assert repaired(tmp_path / "in", Path(folder) / "out") == 3


@FLIPS
def test_in_a_shard_of_pairs(tmp_path: Path, flips: int) -> None:
    make_pairs(tmp_path / "made")
    shutil.copytree(tmp_path / "made", tmp_path / "in")
    path = tmp_path / "in" / "00000.tar"
    whole = path.read_bytes()
    for offset, mask in offsets(len(whole), flips, seed=3):
        path.write_bytes(whole)
        flip(path, offset, mask)
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            try:
                saved = repaired(tmp_path / "in", Path(folder) / "out")
            except BadInputError:
                assert offset < 512
                continue
            assert saved >= 2, (offset, mask)
