"""One run at a time writes to an output folder.

The lease is a file, made whole or not at all, that names its holder and is touched every 10 s. It
is stale when its process is dead on this host, or when it has not been touched for 60 s. How it is
made, touched and taken over differs between a disk (`lease_file.py`) and an object store
(`lease_object.py`).
"""

import os
import socket
import threading
import uuid
from typing import Self

import msgspec

from mmdata.errors import UserError
from mmdata.storage.files import read_bytes
from mmdata.storage.lease_file import FileKeeper
from mmdata.storage.lease_object import ObjectKeeper
from mmdata.storage.urls import is_url

LEASE_NAME = ".mmdata-lease.json"
HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0


class LeaseHolder(msgspec.Struct, frozen=True):
    """Who holds an output folder."""

    run: str
    host: str
    pid: int
    process_start: str


def keeper_of(path: str) -> ObjectKeeper | FileKeeper:
    """The keeper of a lease at this path."""
    return ObjectKeeper(path) if is_url(path) else FileKeeper(path)


def process_start(pid: int) -> str:
    """When a process began, in clock ticks since boot; empty if it does not run.

    A process id comes back after a reboot or a wrap-around; its start time does not. A process
    that was killed and that nobody has waited for (a zombie) does not run.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return "" if fields[0] in ("Z", "X") else fields[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "unknown"
    return "unknown"


class Lease:
    """The right to write to a folder, kept alive by a thread until released.

    Raises:
        UserError: another run holds it, with who that is.
    """

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, LEASE_NAME)
        pid = os.getpid()
        self.holder = LeaseHolder(uuid.uuid4().hex, socket.gethostname(), pid, process_start(pid))
        self._data = msgspec.json.encode(self.holder)
        self._keeper = keeper_of(self.path)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def acquire(self) -> None:
        """Take the lease, over a stale one if need be."""
        for _ in range(5):
            if self._keeper.create(self._data) or holds(self.path, self.holder.run):
                self._thread.start()
                return
            try:
                seen = read_bytes(self.path)
            except FileNotFoundError:
                continue
            current = _decode(seen)
            if current is not None and not is_stale(self.path, current):
                raise UserError(
                    f"{os.path.dirname(self.path)}: another run is writing there (process "
                    f"{current.pid} on {current.host}); wait for it or stop it"
                )
            self._keeper.take_over(seen, self._data)
        raise UserError(f"{self.path}: could not take the lease: other runs keep taking it")

    def release(self) -> None:
        """Give the folder up, if it is still ours."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if holds(self.path, self.holder.run):
            self._keeper.remove()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                if holds(self.path, self.holder.run):  # never keep another run's lease alive
                    self._keeper.touch(self._data)
            except OSError:
                continue  # a store that is away for a moment; the next beat tries again

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _decode(data: bytes) -> LeaseHolder | None:
    try:
        return msgspec.json.decode(data, type=LeaseHolder)
    except msgspec.DecodeError:
        return None


def read_holder(path: str) -> LeaseHolder | None:
    """Who holds a lease; None when it is gone or not one of ours."""
    try:
        return _decode(read_bytes(path))
    except FileNotFoundError:
        return None


def holds(path: str, run: str) -> bool:
    """Whether this run is the one that may commit; asked by workers before they rename.

    Args:
        path: of the lease.
        run: id of the run.
    """
    holder = read_holder(path)
    return holder is not None and holder.run == run


def age_seconds(path: str) -> float:
    """Since the holder was last heard of; 0 where the lease is gone just now."""
    try:
        return max(0.0, keeper_of(path).age_seconds())
    except FileNotFoundError:
        return 0.0


def is_stale(path: str, holder: LeaseHolder) -> bool:
    """Whether the holder is dead here, or silent for too long anywhere."""
    if holder.host == socket.gethostname():
        start = process_start(holder.pid)
        if not start or (holder.process_start and start != holder.process_start):
            return True
    try:
        return keeper_of(path).age_seconds() > STALE_SECONDS
    except FileNotFoundError:
        return True
