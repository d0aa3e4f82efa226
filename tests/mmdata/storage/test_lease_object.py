"""A lease in an object store: one of several takers gets it, a lost one stays lost."""

import socket
import threading

import msgspec
import pytest

from mmdata.errors import UserError
from mmdata.storage import lease as leases
from mmdata.storage.lease import (
    LEASE_NAME,
    Lease,
    LeaseHolder,
    age_seconds,
    holds,
    is_stale,
    read_holder,
)
from mmdata.storage.lease_object import ObjectKeeper
from tests.object_store import ObjectStore

pytestmark = pytest.mark.slow
DEAD = LeaseHolder("gone", socket.gethostname(), 2**22 + 1, "1")


def put(store: ObjectStore, folder: str, holder: LeaseHolder) -> str:
    path = f"{folder}/{LEASE_NAME}"
    store.fs.pipe_file(path, msgspec.json.encode(holder))
    return path


def test_it_is_there_while_it_is_held(object_store: ObjectStore, bucket: str) -> None:
    with Lease(bucket) as lease:
        assert holds(lease.path, lease.holder.run)
        assert age_seconds(lease.path) < 30
        with pytest.raises(UserError, match=f"{bucket}: another run is writing there"):
            Lease(bucket).acquire()
    assert read_holder(lease.path) is None


def test_of_many_that_take_one_over_one_gets_it(object_store: ObjectStore, bucket: str) -> None:
    path = put(object_store, bucket, DEAD)
    taken: list[Lease] = []
    refused: list[UserError] = []
    barrier = threading.Barrier(5)

    def take() -> None:
        lease = Lease(bucket)
        barrier.wait()
        try:
            lease.acquire()
        except UserError as error:
            refused.append(error)
        else:
            taken.append(lease)

    threads = [threading.Thread(target=take) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), len(refused)) == (1, 4)
    assert holds(path, taken[0].holder.run)
    taken[0].release()


def test_a_silent_holder_elsewhere_is_stale_by_the_clock_of_the_store(
    object_store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = LeaseHolder("theirs", "elsewhere", 1, "")
    path = put(object_store, bucket, elsewhere)
    assert not is_stale(path, elsewhere)
    monkeypatch.setattr("time.time", lambda: 4e9)  # our clock does not matter
    assert not is_stale(path, elsewhere)
    monkeypatch.setattr(leases, "STALE_SECONDS", -1.0)
    assert is_stale(path, elsewhere)


def test_the_beat_makes_it_young_again(object_store: ObjectStore, bucket: str) -> None:
    with Lease(bucket) as lease:
        keeper = ObjectKeeper(lease.path)
        before = object_store.fs.info(lease.path)["LastModified"]
        keeper.touch(msgspec.json.encode(lease.holder))
        assert object_store.fs.info(lease.path)["LastModified"] >= before
        assert holds(lease.path, lease.holder.run)


def test_a_run_that_was_taken_over_leaves_the_others_lease_alone(
    object_store: ObjectStore, bucket: str
) -> None:
    with Lease(bucket) as lease:
        other = LeaseHolder("other", "elsewhere", 1, "")
        put(object_store, bucket, other)
        ObjectKeeper(lease.path).touch(msgspec.json.encode(lease.holder))
        assert read_holder(lease.path) == other
    assert read_holder(lease.path) == other


def test_a_lease_that_changed_hands_is_not_taken_over(
    object_store: ObjectStore, bucket: str
) -> None:
    path = put(object_store, bucket, LeaseHolder("fresh", "elsewhere", 1, ""))
    ObjectKeeper(path).take_over(msgspec.json.encode(DEAD), b"mine")
    holder = read_holder(path)
    assert holder is not None
    assert holder.run == "fresh"
