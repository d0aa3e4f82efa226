"""Reading files and folders that may be on a disk or in a store, by the same few calls.

`exists` and the like ask once and let errors through: fsspec's own `exists` takes an outage for
"not there", which would make a resume start anew.
"""

import io
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, cast

from mmdata.errors import StorageError
from mmdata.storage.urls import PART_BYTES, absolute, filesystem, is_url, is_web, store_errors

Buffer = mmap.mmap | bytes
_COPY_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of a file without reading it.

    Attributes:
        size: in bytes.
        version: changes when the file does: its time on a disk, its ETag or time in a store.
        seconds: when it was written, since the epoch; 0 where the store does not say.
    """

    size: int
    version: str
    seconds: float


def facts_of(path: str) -> FileFacts:
    """Size, version and time of a file.

    Raises:
        FileNotFoundError: there is none.
        StorageError: the store does not answer, or does not say how large the file is.
    """
    if not is_url(path):
        info = os.stat(path)
        return FileFacts(info.st_size, str(info.st_mtime_ns), info.st_mtime)
    with store_errors(path):
        return _facts(path, filesystem(path).info(path))


def _facts(path: str, info: Mapping[str, Any]) -> FileFacts:
    """From what fsspec knows of a file."""
    if info.get("size") is None:
        raise StorageError(f"{path}: the server does not say how large it is; download it first")
    when = info.get("LastModified") or info.get("mtime") or info.get("updated")
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            when = None
    seconds = when.timestamp() if isinstance(when, datetime) else 0.0
    version = info.get("ETag") or info.get("blob_id") or (str(when) if when else "")
    return FileFacts(int(info["size"]), str(version), seconds)


def size_of(path: str) -> int:
    """Bytes of a file."""
    return facts_of(path).size


def exists(path: str) -> bool:
    """Whether there is a file or folder of this name."""
    if not is_url(path):
        return os.path.exists(path)
    return _kind(path) is not None


def is_folder(path: str) -> bool:
    """Whether it is a folder; in a store: whether anything lies below the prefix."""
    if not is_url(path):
        return os.path.isdir(path)
    return _kind(path) == "directory"


def _kind(url: str) -> str | None:
    try:
        with store_errors(url):
            return str(filesystem(url).info(url)["type"])
    except FileNotFoundError:
        return None


def list_folder(path: str) -> dict[str, FileFacts]:
    """The files right in a folder by name; none where a store has nothing below the prefix."""
    if is_url(path):
        return {name: _facts(name, info) for name, info in _listing(path) if info["type"] == "file"}
    with os.scandir(path) as entries:
        found = {}
        for entry in entries:
            try:
                info = entry.stat()
            except FileNotFoundError:  # removed just now, or a link that leads nowhere
                continue
            if entry.is_file():
                found[entry.name] = FileFacts(info.st_size, str(info.st_mtime_ns), info.st_mtime)
        return found


def list_names(path: str) -> list[str]:
    """Names of the files and folders right in a folder."""
    if is_url(path):
        return [name for name, _ in _listing(path)]
    return os.listdir(path)


def _listing(url: str) -> list[tuple[str, Mapping[str, Any]]]:
    try:
        with store_errors(url):
            entries = filesystem(url).ls(url, detail=True)
    except FileNotFoundError:
        return []
    named = [(str(entry["name"]).rstrip("/").rpartition("/")[2], entry) for entry in entries]
    return [(name, entry) for name, entry in named if name]


def glob(pattern: str) -> list[str]:
    """The paths in a store that match a pattern of `*`, `?` and `[...]`, as URLs."""
    with store_errors(pattern):
        store = filesystem(pattern)
        return [store.unstrip_protocol(path) for path in store.glob(pattern)]


def open_file(path: str) -> AbstractContextManager[BinaryIO]:
    """A file to read and seek in.

    Of a store, 16 MiB are read ahead. Of a web server, which may know no ranges, an unnamed local
    copy is made.
    """
    if is_web(path):
        return cast(AbstractContextManager[BinaryIO], local_file(path))
    if is_url(path):
        return cast(AbstractContextManager[BinaryIO], _StoreFile(path))
    return open(path, "rb")


def open_stream(url: str) -> AbstractContextManager[BinaryIO]:
    """A file of a store or a web server, to be read once from start to end: nothing is copied."""
    return cast(AbstractContextManager[BinaryIO], _StoreFile(url))


class _StoreFile(io.RawIOBase):
    """A file of a store whose errors are told as `store_errors` does."""

    def __init__(self, url: str) -> None:
        self._url = url
        with store_errors(url):
            size = 0 if is_web(url) else PART_BYTES  # 0: one request, read from start to end
            self._file = filesystem(url).open(url, "rb", block_size=size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        with store_errors(self._url):
            return cast(bytes, self._file.read(-1 if size is None else size))

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        with store_errors(self._url):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def read_bytes(path: str) -> bytes:
    """All of a file.

    Raises:
        OSError: it is not there or cannot be read.
        StorageError: the store does not answer, or refuses.
    """
    if not is_url(path):
        with open(path, "rb") as file:
            return file.read()
    with store_errors(path):
        return cast(bytes, filesystem(path).cat_file(path))


def read_range(path: str, offset: int, size: int) -> bytes:
    """A part of a file; shorter where the file ends before it does.

    Args:
        path: here or in a store.
        offset: byte to begin at.
        size: bytes.

    Raises:
        OSError: it is not there or cannot be read.
        StorageError: the store does not answer, or refuses.
    """
    if is_url(path):
        with store_errors(path):
            return cast(bytes, filesystem(path).cat_file(path, start=offset, end=offset + size))
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def read_many(paths: Iterable[str]) -> dict[str, bytes]:
    """Small files of one store by their paths, fetched at the same time; the missing are left out.

    Raises:
        StorageError: the store does not answer, or refuses.
    """
    paths = list(paths)
    if not paths:
        return {}
    found: dict[str, bytes] = {}
    with store_errors(paths[0]):
        store = filesystem(paths[0])
        inner = {store._strip_protocol(path): path for path in paths}
        for name, value in store.cat(list(inner), on_error="return").items():
            if isinstance(value, FileNotFoundError):
                continue
            if isinstance(value, BaseException):
                raise value
            found[inner[name]] = value
    return found


@contextmanager
def open_buffer(path: str) -> Iterator[Buffer]:
    """A whole file as memory: mapped. What is in a store is first copied to an unnamed local file.

    Raises:
        OSError: the file cannot be opened.
        StorageError: the store does not answer, or refuses.
    """
    with local_file(path) as file, mapped(file) as data:
        yield data


@contextmanager
def mapped(file: io.BufferedIOBase) -> Iterator[Buffer]:
    """An open file on this machine as memory, to be read from start to end."""
    data = _map(file)
    try:
        if isinstance(data, mmap.mmap):
            data.madvise(mmap.MADV_SEQUENTIAL)
        yield data
    finally:
        if isinstance(data, mmap.mmap):
            data.close()


def map_file(path: str) -> Buffer:
    """A file as memory; the caller closes the map."""
    with local_file(path) as file:
        return _map(file)


def _map(file: io.BufferedIOBase) -> Buffer:
    """A map of a file; bytes of an empty one, which cannot be mapped."""
    if os.fstat(file.fileno()).st_size == 0:
        return b""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@contextmanager
def local_file(path: str) -> Iterator[io.BufferedIOBase]:
    """A file on this machine: itself, or a copy of what is in a store, gone when it is closed."""
    if not is_url(path):
        with open(path, "rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as copy:
        with _StoreFile(path) as source:
            shutil.copyfileobj(source, copy, _COPY_BYTES)
        copy.seek(0)
        yield cast(io.BufferedIOBase, copy)


def make_folder(path: str) -> None:
    """Make a folder and those above it; a store needs none."""
    if not is_url(path):
        os.makedirs(path, exist_ok=True)


def same_file(first: str, second: str) -> bool:
    """Whether two paths lead to the same place."""
    return real_path(first) == real_path(second)


def real_path(path: str) -> str:
    """A path with its links followed; a URL as it is."""
    return absolute(path) if is_url(path) else os.path.realpath(path)
