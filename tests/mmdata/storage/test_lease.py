"""One run at a time writes to a folder; a dead or silent holder does not keep others out."""

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from mmdata.errors import UserError
from mmdata.storage import lease as leases
from mmdata.storage.lease import (
    LEASE_NAME,
    Lease,
    LeaseHolder,
    holds,
    is_stale,
    process_start,
    read_holder,
)


def put(folder: Path, holder: LeaseHolder, *, age_seconds: float = 0.0) -> Path:
    path = folder / LEASE_NAME
    path.write_bytes(msgspec.json.encode(holder))
    then = time.time() - age_seconds
    os.utime(path, (then, then))
    return path


def here(pid: int, start: str | None = None) -> LeaseHolder:
    """A holder on this host."""
    begun = process_start(pid) if start is None else start
    return LeaseHolder("their-run", socket.gethostname(), pid, begun)


def test_a_lease_is_there_while_it_is_held(tmp_path: Path) -> None:
    with Lease(str(tmp_path)) as lease:
        assert holds(lease.path, lease.holder.run)
        assert not holds(lease.path, "another-run")
        assert [p.name for p in tmp_path.iterdir()] == [LEASE_NAME]
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_is_refused_with_who_holds_it(tmp_path: Path) -> None:
    with Lease(str(tmp_path)) as first:
        with pytest.raises(UserError) as caught:
            Lease(str(tmp_path)).acquire()
        assert holds(first.path, first.holder.run)
    assert str(caught.value) == (
        f"{tmp_path}: another run is writing there (process {os.getpid()} on "
        f"{socket.gethostname()}); wait for it or stop it"
    )


def test_of_many_that_take_a_stale_lease_one_gets_it(tmp_path: Path) -> None:
    for _ in range(20):
        path = put(tmp_path, LeaseHolder("gone", "elsewhere", 1, ""), age_seconds=3600)
        taken: list[Lease] = []
        refused: list[UserError] = []
        barrier = threading.Barrier(6)

        def take(
            taken: list[Lease] = taken,
            refused: list[UserError] = refused,
            barrier: threading.Barrier = barrier,
        ) -> None:
            lease = Lease(str(tmp_path))
            barrier.wait()
            try:
                lease.acquire()
            except UserError as error:
                refused.append(error)
            else:
                taken.append(lease)

        threads = [threading.Thread(target=take) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        holding = [lease for lease in taken if holds(str(path), lease.holder.run)]
        assert len(holding) == 1
        assert len(taken) + len(refused) == 6
        for lease in taken:
            lease.release()
        assert list(tmp_path.iterdir()) == []


def test_a_dead_process_of_this_host_holds_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    put(tmp_path, here(process.pid, start="1"))
    with Lease(str(tmp_path)) as lease:
        assert holds(lease.path, lease.holder.run)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_zombie_holds_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert process_start(process.pid)
    process.kill()
    deadline = time.monotonic() + 300
    while process_start(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process_start(process.pid) == ""
    process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_id_that_came_back_is_another_process(tmp_path: Path) -> None:
    path = put(tmp_path, here(os.getpid(), start="1"))
    holder = read_holder(str(path))
    assert holder is not None
    assert is_stale(str(path), holder)


def test_a_living_process_of_this_host_holds_while_its_heart_beats(tmp_path: Path) -> None:
    path = put(tmp_path, here(os.getpid()))
    assert not is_stale(str(path), here(os.getpid()))
    put(tmp_path, here(os.getpid()), age_seconds=leases.STALE_SECONDS + 1)
    assert is_stale(str(path), here(os.getpid()))


def test_another_host_is_judged_by_its_heartbeat(tmp_path: Path) -> None:
    other = LeaseHolder("their-run", "elsewhere", 1, "1")
    path = put(tmp_path, other, age_seconds=leases.STALE_SECONDS - 10)
    with pytest.raises(UserError, match=r"process 1 on elsewhere"):
        Lease(str(tmp_path)).acquire()
    put(tmp_path, other, age_seconds=leases.STALE_SECONDS + 10)
    with Lease(str(tmp_path)) as lease:
        assert holds(str(path), lease.holder.run)


def test_the_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.02)
    with Lease(str(tmp_path)) as lease:
        os.utime(lease.path, (0, 0))
        begun = time.time()
        deadline = time.monotonic() + 300
        while os.stat(lease.path).st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert os.stat(lease.path).st_mtime > begun - 5  # a disk's clock may be coarse


def test_a_run_that_was_taken_over_neither_keeps_nor_removes_the_others_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.02)
    lease = Lease(str(tmp_path))
    lease.acquire()
    other = LeaseHolder("their-run", "elsewhere", 1, "1")
    path = put(tmp_path, other, age_seconds=30)
    time.sleep(0.2)
    assert time.time() - path.stat().st_mtime > 25
    lease.release()
    assert read_holder(str(path)) == other


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"run": 1}', b"\xff"])
def test_a_lease_that_cannot_be_read_is_taken_over(data: bytes, tmp_path: Path) -> None:
    (tmp_path / LEASE_NAME).write_bytes(data)
    with Lease(str(tmp_path)) as lease:
        assert holds(lease.path, lease.holder.run)


def test_a_file_system_without_hard_links_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: str, target: str) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with Lease(str(tmp_path)) as lease:
        assert holds(lease.path, lease.holder.run)
        with pytest.raises(UserError, match="another run is writing there"):
            Lease(str(tmp_path)).acquire()
    assert list(tmp_path.iterdir()) == []


def test_a_draft_that_another_run_swept_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link
    swept: list[str] = []

    def sweep_first(source: str, target: str) -> None:
        if not swept:
            swept.append(source)
            os.unlink(source)
        link(source, target)

    monkeypatch.setattr(os, "link", sweep_first)
    with Lease(str(tmp_path)) as lease:
        assert holds(lease.path, lease.holder.run)
    assert swept
