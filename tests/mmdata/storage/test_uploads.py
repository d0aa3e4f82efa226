"""An object appears when it is whole, and not before; what is left of uploads can be aborted."""

import hashlib
from collections.abc import Callable

import pytest

from mmdata.errors import StorageError
from mmdata.storage import uploads
from mmdata.storage.atomic import pending_file, remove, write_atomically
from mmdata.storage.uploads import PendingUpload, abort_uploads, unfinished_uploads
from tests.object_store import ObjectStore

pytestmark = pytest.mark.slow
MIB = 2**20


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PART_BYTES", 5 * MIB)  # the least that S3 takes


@pytest.mark.parametrize("size", [0, 1, 5 * MIB - 1, 5 * MIB, 12 * MIB + 7])
def test_it_is_there_when_it_is_published(
    object_store: ObjectStore, bucket: str, size: int
) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    pending = pending_file(f"{bucket}/{size}")
    assert isinstance(pending, PendingUpload)
    for at in range(0, size, MIB):
        pending.write(data[at : min(at + MIB, size)])
    assert pending.finish() == hashlib.sha256(data[:size]).hexdigest()
    assert not object_store.fs.exists(f"{bucket}/{size}")
    pending.publish()
    assert object_store.fs.cat_file(f"{bucket}/{size}") == data[:size]
    assert pending.size == size
    assert unfinished_uploads(bucket) == []


def test_what_was_there_stays_until_then(object_store: ObjectStore, bucket: str) -> None:
    write_atomically(f"{bucket}/a", b"old")
    pending = PendingUpload(f"{bucket}/a")
    pending.write(b"x" * (6 * MIB))
    assert object_store.fs.cat_file(f"{bucket}/a") == b"old"
    pending.discard()
    assert object_store.fs.cat_file(f"{bucket}/a") == b"old"
    assert unfinished_uploads(bucket) == []


def test_an_upload_that_nobody_finished_is_found_and_aborted(bucket: str) -> None:
    for name in ("a", "b"):
        PendingUpload(f"{bucket}/{name}").write(b"x" * (6 * MIB))
    beside = PendingUpload(f"{bucket}-beside/c")
    beside.write(b"x" * (6 * MIB))
    assert [key.rpartition("/")[2] for key, _ in unfinished_uploads(bucket)] == ["a", "b"]
    assert abort_uploads(bucket) == 2
    assert unfinished_uploads(bucket) == []
    assert len(unfinished_uploads(f"{bucket}-beside")) == 1
    beside.discard()


def test_an_upload_that_was_aborted_is_not_published(
    object_store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmdata.storage.urls._filesystems", {})
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # moto answers with a 500, which is tried again
    pending = PendingUpload(f"{bucket}/a")
    pending.write(b"x" * (6 * MIB))
    abort_uploads(bucket)
    with pytest.raises((StorageError, FileNotFoundError)):
        pending.publish()
    pending.discard()
    assert not object_store.fs.exists(f"{bucket}/a")


def test_discarding_does_not_raise_where_the_store_is_away(
    object_store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending = PendingUpload(f"{bucket}/a")
    pending.write(b"x" * (6 * MIB))

    def away(*_: object) -> None:
        raise OSError("away")

    monkeypatch.setattr(pending._upload, "discard", away)
    pending.discard()
    assert len(unfinished_uploads(bucket)) == 1
    abort_uploads(bucket)


def test_removing_what_may_be_gone(object_store: ObjectStore, bucket: str) -> None:
    names = [f"{bucket}/{n}" for n in range(1100)]  # more than one request takes
    object_store.fs.pipe(dict.fromkeys(names[:1050], b""))
    remove(names)
    assert object_store.fs.find(bucket) == []


def test_nothing_is_written_behind_the_end(bucket: str) -> None:
    pending = PendingUpload(f"{bucket}/a")
    pending.finish()
    write: Callable[[bytes], None] = pending.write
    with pytest.raises(ValueError, match="written after it was finished"):
        write(b"x")
