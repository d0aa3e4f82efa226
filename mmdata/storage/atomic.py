"""Files that are either whole or not there: written under a name of the attempt, then renamed.

Temporary names start with a dot and end in `.tmp`, and hold the run and a random part: two
attempts at one file never write into each other, and the run that holds the lease can sweep what
a killed one left behind.
"""

import contextlib
import hashlib
import os
import re
import uuid
from collections.abc import Iterable
from types import TracebackType
from typing import IO, Self

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
    """Make renames in a folder durable."""
    descriptor = os.open(folder or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class PendingFile:
    """A file that is hashed while it is written and appears under its name only on `publish`.

    Attributes:
        size: bytes written so far.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = 0
        self._temporary = temporary_path(path)
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
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
        return self._hash.hexdigest()

    def publish(self) -> None:
        """Rename to the final name (finishing first)."""
        self.finish()
        os.replace(self._temporary, self.path)

    def discard(self) -> None:
        """Remove the temporary file; nothing appears. Does not raise where the disk is full."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # closing writes what is buffered, which may not fit
                self._file.close()
            self._file = None
        remove([self._temporary])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.publish()
        finally:
            self.discard()  # of what was not published


def write_atomically(path: str, data: bytes) -> None:
    """Replace `path` by `data`, whole or not at all, durable on return."""
    with PendingFile(path) as pending:
        pending.write(data)
    sync_folder(os.path.dirname(path))


def sha256_of(path: str, chunk_bytes: int = 1 << 22) -> str:
    """The sha256 of a file's bytes, lower-case hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(chunk_bytes):
            digest.update(chunk)
    return digest.hexdigest()


def remove(paths: Iterable[str]) -> None:
    """Remove files that may be gone already."""
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
