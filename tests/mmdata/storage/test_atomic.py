"""A file is whole under its name or not there at all, and temporary names are known again."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mmdata.storage.atomic import (
    PendingFile,
    give_usual_modes,
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


@pytest.mark.parametrize(("durable", "syncs"), [(True, 2), (False, 0)])
def test_a_file_that_need_not_outlive_a_power_cut_is_not_synced(
    durable: bool, syncs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data and the folder are; the file is whole or not there either way."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    write_atomically(str(tmp_path / "a"), b"all of it", durable=durable)
    assert len(synced) == syncs
    assert (tmp_path / "a").read_bytes() == b"all of it"
    assert os.listdir(tmp_path) == ["a"]


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


@contextmanager
def mask(taken: int) -> Iterator[None]:
    before = os.umask(taken)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("taken", "file", "folder"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750)]
)
def test_what_libraries_leave_to_one_reader_is_read_as_the_mask_says(
    taken: int, file: int, folder: int, tmp_path: Path
) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    for name, mode in (("w", 0o600), ("r", 0o444), ("x", 0o777)):
        (inside / name).write_bytes(b"1")
        (inside / name).chmod(mode)
    inside.chmod(0o2700)  # its group is inherited
    with mask(taken):
        give_usual_modes(str(tmp_path / "a"))
        write_atomically(str(inside / "ours"), b"1")
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "a").rglob("*")}
    assert modes == dict.fromkeys(("w", "r", "x", "ours"), file) | {"b": 0o2000 | folder}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_one_file_is_given_the_mode_alone(tmp_path: Path) -> None:
    for name in ("w", "other"):
        (tmp_path / name).write_bytes(b"1")
        (tmp_path / name).chmod(0o600)
    with mask(0o022):
        give_usual_modes(str(tmp_path / "w"))
    assert (tmp_path / "w").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "other").stat().st_mode & 0o777 == 0o600


def test_what_is_no_file_is_written_through_and_stays_what_it_is(tmp_path: Path) -> None:
    """A rename over /dev/null would put a file in its place, for every program of the machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(str(pipe), b"data")
        assert os.read(reader, 10) == b"data"
        pending = PendingFile(str(pipe))
        pending.discard()
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)
    assert os.listdir(tmp_path) == ["pipe"]
    write_atomically(os.devnull, b"data")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
