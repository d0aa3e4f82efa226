"""The same few calls read files and folders on a disk and in a store."""

import os
import time
from pathlib import Path

import pytest

from mmdata.errors import StorageError
from mmdata.storage.files import (
    exists,
    facts_of,
    glob,
    is_folder,
    list_folder,
    list_names,
    open_buffer,
    open_file,
    read_bytes,
    read_many,
    read_range,
    same_file,
)
from tests.object_store import ObjectStore

FILES = {"a.txt": b"alpha", "b.txt": b"", "deep/c.txt": b"gamma"}


@pytest.fixture(params=["disk", pytest.param("store", marks=pytest.mark.slow)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder with FILES in it."""
    for name, data in FILES.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if request.param == "disk":
        return str(tmp_path / "in")
    url: str = request.getfixturevalue("bucket")
    store: ObjectStore = request.getfixturevalue("object_store")
    store.put_folder(tmp_path / "in", url)
    return url


def test_reading(folder: str) -> None:
    assert read_bytes(f"{folder}/a.txt") == b"alpha"
    assert read_range(f"{folder}/a.txt", 1, 3) == b"lph"
    with open_file(f"{folder}/a.txt") as file:
        file.seek(2)
        assert file.read(2) == b"ph"
        file.seek(0)
        assert file.read() == b"alpha"
    with open_buffer(f"{folder}/a.txt") as data:
        assert data[1:3] == b"lp"
    with open_buffer(f"{folder}/b.txt") as data:
        assert len(data) == 0


def test_what_is_there(folder: str) -> None:
    assert exists(f"{folder}/a.txt")
    assert exists(f"{folder}/deep")
    assert not exists(f"{folder}/z.txt")
    assert is_folder(folder)
    assert is_folder(f"{folder}/deep")
    assert not is_folder(f"{folder}/a.txt")
    assert not is_folder(f"{folder}/dee")


def test_what_is_known_of_a_file(folder: str) -> None:
    facts = facts_of(f"{folder}/a.txt")
    assert facts.size == 5
    assert facts.version
    assert abs(facts.seconds - time.time()) < 3600
    with pytest.raises(FileNotFoundError):
        facts_of(f"{folder}/z.txt")


def test_listing(folder: str) -> None:
    assert {name: facts.size for name, facts in list_folder(folder).items()} == {
        "a.txt": 5,
        "b.txt": 0,
    }
    assert sorted(list_names(folder)) == ["a.txt", "b.txt", "deep"]


@pytest.mark.slow
def test_many_at_once_leaves_out_what_is_missing(object_store: ObjectStore, bucket: str) -> None:
    object_store.fs.pipe({f"{bucket}/{n}": b"%d" % n for n in range(30)})
    wanted = [f"{bucket}/{n}" for n in (3, 29, 99)]
    assert read_many(wanted) == {f"{bucket}/3": b"3", f"{bucket}/29": b"29"}
    assert read_many([]) == {}


@pytest.mark.slow
def test_a_glob_gives_urls(object_store: ObjectStore, bucket: str) -> None:
    object_store.fs.pipe({f"{bucket}/{n}.tar": b"" for n in range(3)} | {f"{bucket}/x.txt": b""})
    assert sorted(glob(f"{bucket}/*.tar")) == [f"{bucket}/{n}.tar" for n in range(3)]


@pytest.mark.slow
def test_an_outage_is_never_taken_for_not_there(
    object_store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_store.fs.pipe_file(f"{bucket}/a", b"x")
    monkeypatch.setattr(type(object_store.fs), "retries", 1)
    monkeypatch.setattr("mmdata.storage.urls._filesystems", {})
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    object_store.door.shut()
    try:
        for ask in (exists, is_folder, list_names, read_bytes):
            with pytest.raises(StorageError, match=f"{bucket}"):
                ask(f"{bucket}/a")
    finally:
        object_store.door.open()
    assert exists(f"{bucket}/a")


def test_a_link_leads_to_the_same_place(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.symlink(tmp_path / "a", tmp_path / "b")
    assert same_file(str(tmp_path / "a"), str(tmp_path / "b"))
    assert not same_file("s3://b/x", "s3://b/y")
