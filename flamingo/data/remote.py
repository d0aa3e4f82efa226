"""Reads from stores and commands that wait for a time and no longer.

The clients of stores bring timeouts and retries of their own, which add up to most of an hour with
a store that takes connections and then says nothing. So a file of a store is read by a thread of
its own, and what waits for it here gives up after a stated time; the thread is left behind (it ends
with its client's timeouts, or with the process) and what it still reads is dropped. It also reads
a little ahead, while this side writes and hashes.
"""

import contextlib
import errno
import os
import queue
import select
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

from mmdata.storage.files import open_stream

_CHUNK_BYTES = 4 * 2**20
_CHUNKS_AHEAD = 2
#: How soon a wait ends when the run does.
_LOOK_SECONDS = 0.1


class Source(Protocol):
    """What a shard is fetched from, in order."""

    def read(self, size: int) -> bytes:
        """The next bytes; none at the end.

        Raises:
            TimeoutError: nothing came for too long.
            OSError: the store or command failed.
        """
        ...


@contextlib.contextmanager
def store_source(url: str, stall_seconds: float, closing: threading.Event) -> Iterator[Source]:
    """A file of a store.

    Args:
        url: of it.
        stall_seconds: to wait for the next bytes (of S3: for the next 16 MiB, one request).
        closing: ends the waiting.
    """
    source = _StoreSource(url, stall_seconds, closing)
    try:
        yield source
    finally:
        source.leave()


class _StoreSource:
    def __init__(self, url: str, stall_seconds: float, closing: threading.Event) -> None:
        self._url, self._stall_seconds, self._closing = url, stall_seconds, closing
        self._chunks: queue.Queue[bytes | Exception] = queue.Queue(_CHUNKS_AHEAD)
        self._left = threading.Event()
        # A daemon: what waits for a dead store must not keep the process from ending.
        threading.Thread(target=self._pump, name="store", daemon=True).start()

    def read(self, size: int) -> bytes:
        deadline = time.monotonic() + self._stall_seconds
        while True:
            try:
                chunk = self._chunks.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                _check_wait(deadline, self._stall_seconds, self._closing)
                continue
            if isinstance(chunk, Exception):
                raise chunk
            return chunk

    def leave(self) -> None:
        """Nobody reads any more."""
        self._left.set()

    def _pump(self) -> None:
        try:
            with open_stream(self._url) as file:
                while self._give(chunk := file.read(_CHUNK_BYTES)) and chunk:
                    pass
        except Exception as error:  # noqa: BLE001 (the reader raises it)
            self._give(error)

    def _give(self, chunk: bytes | Exception) -> bool:
        """Hand it to the reader; whether there still is one."""
        while not self._left.is_set():
            with contextlib.suppress(queue.Full):
                self._chunks.put(chunk, timeout=_LOOK_SECONDS)
                return True
        return False


@contextlib.contextmanager
def pipe_source(command: str, stall_seconds: float, closing: threading.Event) -> Iterator[Source]:
    """The output of a `pipe:` command, as webdataset opens it; ended when nothing comes."""
    from webdataset.gopen import gopen

    with contextlib.closing(gopen(command, "rb")) as pipe:
        watched = _PipeSource(pipe, stall_seconds, closing)
        try:
            yield watched
        finally:
            watched.done()


class _PipeSource:
    def __init__(self, pipe: Any, stall_seconds: float, closing: threading.Event) -> None:
        self._pipe, self._stall_seconds, self._closing = pipe, stall_seconds, closing
        self._descriptor = pipe.stream.fileno()

    def read(self, size: int) -> bytes:
        deadline = time.monotonic() + self._stall_seconds
        while not select.select([self._descriptor], [], [], _LOOK_SECONDS)[0]:
            _check_wait(deadline, self._stall_seconds, self._closing)
        data = os.read(self._descriptor, size)
        if not data:
            status = self._pipe.proc.wait()
            if status:
                raise OSError(errno.EIO, f"the command ended with status {status}")
        return data

    def done(self) -> None:
        """End the command if it has not ended."""
        self._pipe.ignore_errors = True  # they were raised above, or the reader has left
        self._pipe.proc.kill()


def _check_wait(deadline: float, seconds: float, closing: threading.Event) -> None:
    """Go on waiting, unless it was too long or the run ends."""
    if closing.is_set():
        raise OSError(errno.ECANCELED, "the run ends")
    if time.monotonic() >= deadline:
        raise TimeoutError(errno.ETIMEDOUT, f"no byte came for {seconds:g} s")
