"""Many shards at hand at the price of their indexes: maps come and go, pages are let go."""

import os
from pathlib import Path

import pytest

from flamingo.data.catalogue import find_shards
from flamingo.data.shelf import Shelf
from mmdata.errors import BadInputError
from mmdata.usage.records import UnusableError
from tests.shard_factory import Dataset, make_tar


def shelf_of(*specs: object, **changes: int) -> Shelf:
    catalogue = find_shards("s", [str(spec) for spec in specs])
    return Shelf(catalogue.shards, **({"most_indexes": 64} | changes))  # type: ignore[arg-type]


def resident_bytes_of(path: Path) -> int:
    """Of the pages of a file that this process has mapped in."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def test_few_maps_serve_many_shards(pages: Dataset) -> None:
    with shelf_of(pages.folder, most_maps=2, most_indexes=2) as shelf:
        before = len(os.listdir("/proc/self/fd"))
        for ordinal in range(7):
            for shard in (0, 1, 3, 4, 5):
                loan = shelf.read(shard, ordinal)
                assert loan.key == pages.keys(shard)[ordinal]
                assert bytes(loan.members["json"][:1]) == b"{"
                loan.give_back()
        assert len(os.listdir("/proc/self/fd")) - before <= 2
        assert shelf.opened == {0, 1, 3, 4, 5}


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells")
def test_pages_are_let_go_after_use(tmp_path: Path) -> None:
    path = tmp_path / "big.tar"
    path.write_bytes(make_tar([(f"{n}.json", os.urandom(2**20)) for n in range(16)]))
    with shelf_of(path) as shelf:
        for ordinal in range(16):
            loan = shelf.read(0, ordinal)
            assert len(bytes(loan.members["json"])) == 2**20
            assert resident_bytes_of(path) >= 2**20
            loan.give_back()
            assert resident_bytes_of(path) < 2**20


def test_what_a_view_shows_stays_good(pages: Dataset) -> None:
    with shelf_of(pages.folder, most_maps=1) as shelf:
        loan = shelf.read(0, 0)
        view = loan.members["json"]
        text = bytes(view)
        loan.give_back()
        shelf.read(1, 0)  # the first map is closed, but for this view
        assert bytes(view) == text


def test_a_shard_that_was_cut_is_damaged_where_it_is_cut(pages: Dataset) -> None:
    shelf = shelf_of(pages.folder)
    os.truncate(pages.path(0), pages.read_samples(0)[6]["offset"])
    with shelf:
        assert shelf.read(0, 5).key == "000000000005"
        with pytest.raises(UnusableError, match="damaged"):
            shelf.read(0, 6)


def test_a_shard_that_is_gone_is_named(pages: Dataset) -> None:
    shelf = shelf_of(pages.folder)
    pages.path(3).unlink()
    with shelf, pytest.raises(BadInputError, match=r"000000003\.tar: No such file"):
        shelf.read(3, 0)
