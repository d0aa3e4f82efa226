"""A file is whole under its name or not there at all, and temporary names are known again."""

import errno
import hashlib
from pathlib import Path

import pytest

from mmdata.storage.atomic import (
    PendingFile,
    is_temporary,
    remove,
    sha256_of,
    temporary_path,
    write_atomically,
)


def test_nothing_shows_before_it_is_published(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    pending = PendingFile(str(path))
    pending.write(b"abc")
    pending.write(b"def")
    assert not path.exists()
    assert pending.finish() == hashlib.sha256(b"abcdef").hexdigest()
    assert not path.exists()
    pending.publish()
    assert path.read_bytes() == b"abcdef"
    assert pending.size == 6
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_what_was_there_stays_until_then(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    pending = PendingFile(str(path))
    pending.write(b"half of the n")
    pending.discard()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    write_atomically(str(path), b"new")
    assert path.read_bytes() == b"new"


def test_two_attempts_at_one_file_do_not_meet(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    first, second = PendingFile(path), PendingFile(path)
    first.write(b"same")
    second.write(b"same")
    second.publish()
    first.publish()
    assert (tmp_path / "a").read_bytes() == b"same"
    assert len(list(tmp_path.iterdir())) == 1


def test_writing_on_after_the_end_is_an_error(tmp_path: Path) -> None:
    pending = PendingFile(str(tmp_path / "a"))
    pending.finish()
    with pytest.raises(ValueError, match="written after it was finished"):
        pending.write(b"x")
    pending.discard()
    assert list(tmp_path.iterdir()) == []


def test_discarding_twice_or_after_publishing_is_harmless(tmp_path: Path) -> None:
    pending = PendingFile(str(tmp_path / "a"))
    pending.publish()
    pending.discard()
    pending.discard()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_discarding_where_nothing_fits_removes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing writes what is buffered, and fails again: the file must go all the same."""
    pending = PendingFile(str(tmp_path / "a"))
    pending.finish()

    class Full:
        def close(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pending, "_file", Full())
    pending.discard()
    assert list(tmp_path.iterdir()) == []


def test_temporary_names_are_hidden_beside_the_file_and_never_twice_the_same(
    tmp_path: Path,
) -> None:
    paths = {temporary_path(str(tmp_path / "000000000.tar")) for _ in range(100)}
    assert len(paths) == 100
    for path in paths:
        assert Path(path).parent == tmp_path
        assert Path(path).name.startswith(".000000000.tar.")
        assert is_temporary(Path(path).name)


@pytest.mark.parametrize(
    "name",
    ["000.tar", ".tmp", ".mine.tmp", "a.tmp", ".a.txt", f"x.{'0' * 32}.tmp", f".a.{'G' * 32}.tmp"],
)
def test_files_of_others_are_not_taken_for_temporary(name: str) -> None:
    assert not is_temporary(name)


def test_a_stale_lease_that_was_set_aside_is_temporary() -> None:
    assert is_temporary(f".mmdata-lease.json.{'0f' * 16}.stale.tmp")


def test_removing_what_is_gone_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    remove([str(tmp_path / "gone"), str(tmp_path / "a")])
    assert list(tmp_path.iterdir()) == []


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 50)
    expected = hashlib.sha256(bytes(range(256)) * 50).hexdigest()
    assert sha256_of(str(tmp_path / "a"), chunk_bytes=100) == expected
