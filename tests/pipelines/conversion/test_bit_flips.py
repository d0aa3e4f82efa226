"""One flipped bit, anywhere in a conversion, is found and located; without sidecars, most are.

Run: pytest tests/pipelines/conversion/test_bit_flips.py
"""

from pathlib import Path

import pytest

from tests.bit_flips import (
    PROMISED,
    SAMPLES,
    alone,
    draw,
    flipped,
    is_located,
    make_flipped,
    regions,
    share_found_elsewhere,
    together,
)
from tests.rules_page import POSITIONS as MEASURED
from tests.rules_page import measured
from tests.shard_factory import Dataset

#: Flips that are tried: some by `make test`, all that the documentation tells of by the matrix.
POSITIONS = 1000
SOME_OR_ALL = pytest.mark.parametrize(
    "every", [pytest.param(1, marks=pytest.mark.matrix, id="all"), pytest.param(5, id="some")]
)
BESIDE = {
    ".json": ("SIDE", "MAN005"),
    ".samples.parquet": ("SIDE006", "SIDE007"),
    ".rejects.jsonl": ("SIDE010",),
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_flipped(tmp_path_factory.mktemp("flips") / "shards")


def test_regions_are_the_whole_tar_once(dataset: Dataset) -> None:
    data = dataset.path().read_bytes()
    ordered = sorted(regions(data), key=lambda region: region.start)
    assert [region.start for region in ordered] == [0, *(region.stop for region in ordered[:-1])]
    assert ordered[-1].stop == len(data)
    assert sum(region.kind == "header" for region in ordered) == SAMPLES


def test_nothing_is_found_before(dataset: Dataset) -> None:
    assert together(dataset.folder) == []


@SOME_OR_ALL
def test_with_sidecar_and_manifest_every_flip_in_the_tar_is_found_and_located(
    dataset: Dataset, every: int
) -> None:
    path = dataset.path()
    missed = []
    for region, offset, bit in draw(regions(path.read_bytes()), POSITIONS // every, seed=1):
        with flipped(path, offset, bit):
            findings = together(dataset.folder)
        if not any(is_located(finding, region, offset) for finding in findings):
            missed.append((region, offset, bit, [str(finding) for finding in findings]))
    assert missed == []


@SOME_OR_ALL
@pytest.mark.parametrize("ending", BESIDE)
def test_every_flip_beside_the_tar_is_found_and_named(
    dataset: Dataset, ending: str, every: int
) -> None:
    path = dataset.path(0, ending)
    size = path.stat().st_size
    missed = []
    for place in range(0, size * 8, max(1, size * 8 // 150) * every):
        with flipped(path, place // 8, place % 8):
            findings = together(dataset.folder)
        if not any(finding.code.startswith(BESIDE[ending]) for finding in findings):
            missed.append((place, [str(finding) for finding in findings]))
    assert missed == []


@SOME_OR_ALL
def test_every_flip_in_the_manifest_is_found_and_named(dataset: Dataset, every: int) -> None:
    path = dataset.folder / "manifest.json"
    missed = []
    for place in range(0, path.stat().st_size * 8, 13 * every):  # each bit of a byte comes up
        with flipped(path, place // 8, place % 8):
            findings = together(dataset.folder)
        if not any(finding.shard == str(path) for finding in findings):
            missed.append((place // 8, place % 8, [str(finding) for finding in findings]))
    assert missed == []


@SOME_OR_ALL
def test_without_sidecars_every_flip_in_the_promised_regions_is_found(
    dataset: Dataset, tmp_path: Path, every: int
) -> None:
    path = tmp_path / "alone.tar"
    path.write_bytes(dataset.path().read_bytes())
    assert alone(path) == []
    promised = [region for region in regions(path.read_bytes()) if region.kind in PROMISED]
    missed = []
    for region, offset, bit in draw(promised, POSITIONS // every, seed=2):
        with flipped(path, offset, bit):
            findings = alone(path)
        if not any(is_located(finding, region, offset) for finding in findings):
            missed.append((region, offset, bit, [str(finding) for finding in findings]))
    assert missed == []


@pytest.mark.matrix
def test_the_share_found_elsewhere_is_the_one_in_the_documentation(tmp_path: Path) -> None:
    found, tried = share_found_elsewhere(tmp_path, MEASURED, seed=3)
    share, positions = measured()
    assert positions == MEASURED
    assert found / tried == pytest.approx(share, abs=0.04)
