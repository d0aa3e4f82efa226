"""One run at a time writes to an output folder.

The lease is a file, made whole or not at all, that names its holder and is touched every 10 s. It
is stale when its process is dead on this host, or when it has not been touched for 60 s. A stale
lease is taken over by renaming it away first, which only one of several takers can do.
"""

import errno
import os
import socket
import threading
import time
import uuid
from types import TracebackType
from typing import Self

import msgspec

from mmdata.errors import UserError
from mmdata.storage.atomic import remove, temporary_path

LEASE_NAME = ".mmdata-lease.json"
HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
#: What a file system without hard links (FAT, some FUSE and SMB mounts) answers to one.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class LeaseHolder(msgspec.Struct, frozen=True):
    """Who holds an output folder."""

    run: str
    host: str
    pid: int
    process_start: str


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
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def acquire(self) -> None:
        """Take the lease, over a stale one if need be."""
        for _ in range(5):
            if self._create():
                self._thread.start()
                return
            current = read_holder(self.path)
            if current is not None and not is_stale(self.path, current):
                raise UserError(
                    f"{os.path.dirname(self.path)}: another run is writing there (process "
                    f"{current.pid} on {current.host}); wait for it or stop it"
                )
            self._remove_stale(current)
        raise UserError(f"{self.path}: could not take the lease: other runs keep taking it")

    def release(self) -> None:
        """Give the folder up, if it is still ours."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if holds(self.path, self.holder.run):
            remove([self.path])

    def _create(self) -> bool:
        draft = temporary_path(self.path)
        with open(draft, "wb") as file:
            file.write(msgspec.json.encode(self.holder))
        try:
            return _rename_new(draft, self.path)
        except FileNotFoundError:
            return False  # the draft was swept by the run that holds the folder
        finally:
            remove([draft])

    def _remove_stale(self, current: LeaseHolder | None) -> None:
        """Rename the stale lease away: of several takers, one succeeds for each lease."""
        aside = f"{self.path}.{self.holder.run}.stale.tmp"
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        moved = read_holder(aside)
        if moved is not None and moved != current:
            _rename_new(aside, self.path)  # it was somebody's fresh lease: put it back
        remove([aside])

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                if holds(self.path, self.holder.run):  # never keep another run's lease alive
                    os.utime(self.path)
            except OSError:
                continue  # a store that is away for a moment; the next beat tries again

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def _rename_new(source: str, target: str) -> bool:
    """Rename, unless the target's name is taken; a plain rename would replace it."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(target):
            return False
        os.rename(source, target)  # two at one moment could both succeed, without links
        return True
    remove([source])
    return True


def read_holder(path: str) -> LeaseHolder | None:
    """Who holds a lease; None when it is gone or not one of ours."""
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=LeaseHolder)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def holds(path: str, run: str) -> bool:
    """Whether this run is the one that may commit; asked by workers before they rename."""
    holder = read_holder(path)
    return holder is not None and holder.run == run


def is_stale(path: str, holder: LeaseHolder) -> bool:
    """Whether the holder is dead here, or silent for too long anywhere."""
    if holder.host == socket.gethostname():
        start = process_start(holder.pid)
        if not start or (holder.process_start and start != holder.process_start):
            return True
    try:
        age = time.time() - os.stat(path).st_mtime
    except FileNotFoundError:
        return True
    return age > STALE_SECONDS
