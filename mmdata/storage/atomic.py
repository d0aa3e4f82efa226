"""Files that are either whole or not there: written under a name of the attempt, then renamed.

In a store an object appears when its upload is completed (`uploads.py`). On a disk, temporary names
start with a dot and end in `.tmp`, and hold the run and a random part: two attempts at one file
never write into each other, and the run that holds the lease can sweep what a killed one left.
"""

import contextlib
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Iterable
from typing import IO

from mmdata.storage.files import open_file
from mmdata.storage.uploads import PendingUpload, remove_objects
from mmdata.storage.urls import is_url

TEMPORARY_SUFFIX = ".tmp"
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}(\.stale)?" + re.escape(TEMPORARY_SUFFIX))


def temporary_path(path: str) -> str:
    """A fresh hidden name beside `path`."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")


def is_temporary(name: str) -> bool:
    """Whether a file name is one of ours that was never committed."""
    return _TEMPORARY.fullmatch(name) is not None


def sync_folder(folder: str) -> None:
    """Make renames in a folder durable; in a store they are."""
    if is_url(folder):
        return
    descriptor = os.open(folder or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: str) -> None:
    """Make all files of a folder on this machine durable, with their names."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(parent, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(parent)


def is_special(path: str) -> bool:
    """Whether a device, a pipe or a socket is there, such as /dev/null or /dev/stdout.

    What is written goes through it; a rename would put a file in its place, for every program.
    """
    try:
        found = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(found) and not stat.S_ISDIR(found)


class PendingFile:
    """A file that is hashed while it is written and appears under its name only on `publish`.

    Attributes:
        size: bytes written so far.

    Args:
        path: its name at the end.
        durable: its data is synced to the disk before it appears.
    """

    def __init__(self, path: str, *, durable: bool = True) -> None:
        self.path = path
        self.size = 0
        self._special = is_special(path)
        self._durable = durable and not self._special  # which keeps nothing that could be synced
        self._temporary = path if self._special else temporary_path(path)
        self._hash = hashlib.sha256()
        self._file: IO[bytes] | None = open(self._temporary, "wb", buffering=1 << 20)  # noqa: SIM115

    def write(self, data: bytes) -> None:
        """Append bytes."""
        if self._file is None:
            raise ValueError(f"{self.path}: written after it was finished")
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def finish(self) -> str:
        """Sync the data to disk and return its sha256; the file is not visible yet."""
        if self._file is not None:
            self._file.flush()
            if self._durable:
                os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
        return self._hash.hexdigest()

    def publish(self) -> None:
        """Rename to the final name (finishing first)."""
        self.finish()
        if not self._special:
            os.replace(self._temporary, self.path)

    def discard(self) -> None:
        """Remove the temporary file; nothing appears. Does not raise where the disk is full."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # closing writes what is buffered, which may not fit
                self._file.close()
            self._file = None
        if not self._special:
            remove([self._temporary])


#: A file in the making, on a disk or in a store.
Pending = PendingFile | PendingUpload


def pending_file(path: str, *, durable: bool = True) -> Pending:
    """A file that appears under its name only when it is published."""
    return PendingUpload(path) if is_url(path) else PendingFile(path, durable=durable)


def write_atomically(path: str, data: bytes, *, durable: bool = True) -> None:
    """Replace a file, whole or not at all.

    Args:
        path: of the file, or the URL of an object.
        data: what it holds then.
        durable: on a disk it outlives a power cut once this has returned; else the caller syncs.

    Raises:
        OSError: it cannot be written.
        StorageError: the store does not take it.
    """
    pending = pending_file(path, durable=durable)
    try:
        pending.write(data)
        pending.publish()
    finally:
        pending.discard()  # of what was not published
    if durable:
        sync_folder(os.path.dirname(path))


def give_usual_modes(path: str) -> None:
    """Let a file, or a folder with all that is in it, be read by whom the process's mask allows.

    Libraries that write under a temporary name of their own may leave a file that its owner alone
    can read, and a copy has the mode of what it was made of. Afterwards files have 0644 and folders
    0777, less the mask.
    """
    taken = _mask_of_process(os.path.dirname(path))
    _set_mode(path, taken)
    for parent, folders, files in os.walk(path):
        for name in (*folders, *files):
            _set_mode(os.path.join(parent, name), taken)


def _mask_of_process(folder: str) -> int:
    """Asking for it changes it for a moment, for all threads: a file that is made tells it."""
    made = temporary_path(os.path.join(folder, "mode"))
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o777)
    try:
        return 0o777 & ~os.fstat(descriptor).st_mode
    finally:
        os.close(descriptor)
        os.unlink(made)


def _set_mode(path: str, taken: int) -> None:
    found = os.stat(path).st_mode
    wanted = (0o777 if stat.S_ISDIR(found) else 0o644) & ~taken
    if found & 0o777 != wanted:
        os.chmod(path, stat.S_IMODE(found) & ~0o777 | wanted)  # the group stays inherited


def sha256_of(path: str, chunk_bytes: int = 1 << 22) -> str:
    """The sha256 of a file's bytes, lower-case hexadecimal."""
    digest = hashlib.sha256()
    with open_file(path) as file:
        while chunk := file.read(chunk_bytes):
            digest.update(chunk)
    return digest.hexdigest()


def remove(paths: Iterable[str]) -> None:
    """Remove files that may be gone already."""
    urls = []
    for path in paths:
        if is_url(path):
            urls.append(path)
            continue
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
    remove_objects(urls)
