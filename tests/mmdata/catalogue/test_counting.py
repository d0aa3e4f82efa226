"""Tars by others are counted from their headers, once, by processes where there are many."""

from pathlib import Path

import pytest

from mmdata.catalogue import counting as indexing
from mmdata.catalogue.counting import count_samples
from mmdata.errors import BadInputError
from tests.shard_factory import make_tar


@pytest.fixture
def tars(tmp_path: Path) -> list[str]:
    """Tar n holds n + 1 pairs."""
    paths = [tmp_path / f"{n:05d}.tar" for n in range(6)]
    for n, path in enumerate(paths):
        path.write_bytes(
            make_tar([(f"{k}.{e}", b"x") for k in range(n + 1) for e in ("jpg", "txt")])
        )
    return [str(path) for path in paths]


@pytest.mark.parametrize(
    "worth", [400, pytest.param(2, marks=pytest.mark.slow)], ids=["here", "processes"]
)
def test_each_tars_samples_are_counted_and_its_index_kept(
    worth: int, tars: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_WORTH_PROCESSES", worth)
    monkeypatch.setattr(indexing, "_CHUNK", 2)
    assert count_samples(tars, None) == [1, 2, 3, 4, 5, 6]
    assert len(list(tmp_path.glob(".*.tar.index"))) == 6
    assert count_samples(tars[::-1], None) == [6, 5, 4, 3, 2, 1]
    Path(tars[2]).write_bytes(b"\1" * 1024)
    with pytest.raises(BadInputError, match=r"00002\.tar: not a tar"):
        count_samples(tars, None)


def test_a_tar_that_is_gone_is_named(tars: list[str]) -> None:
    with pytest.raises(BadInputError, match=r"gone\.tar: No such file"):
        count_samples([*tars, "gone.tar"], None)


def test_no_tars_have_no_samples() -> None:
    assert count_samples([], None) == []
