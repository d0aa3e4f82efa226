"""Shards of a store on this machine's disk: fetched whole, ahead of need, never more than a bound.

One folder serves all processes of a host. Each fetch is one process's (a lock file), under a
hidden name until it is complete and its sha256 is what the manifest says; a process that is killed
leaves nothing that would be taken for a shard. What is open is locked (flock, shared) and is not
removed; of the rest, what was used longest ago goes first. A store that fails, or sends nothing for
two minutes, is asked again after 1, 2, 4, … seconds, then the run stops with one line: 13 minutes
after a store fell silent.

The choice of whole shards over ranged reads: one sequential request each, and the order may jump
about in a window without asking the store again. The price is disk: lanes of this host x two
windows of shards at most, which is said at the start.
"""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import IO

from flamingo.data.remote import Source, pipe_source, store_source
from mmdata.catalogue.find import PIPE
from mmdata.catalogue.shards import Shard
from mmdata.errors import BadInputError, StorageError, UserError
from mmdata.shards.index import ShardIndex
from mmdata.storage.atomic import TEMPORARY_SUFFIX, temporary_path, write_atomically
from mmdata.storage.files import open_buffer
from mmdata.storage.pread import PreadFile

logger = logging.getLogger(__name__)
_CHUNK_BYTES = 4 * 2**20
_BUCKETS = 64
_ROOM = ".room.lock"
_SHA_ATTEMPTS = 2


class _WrongBytesError(Exception):
    """What came is not what the manifest describes."""


class ShardCache:
    """A bounded folder of fetched shards, for any number of processes; a context manager.

    Args:
        folder: of the cache; made when it is not there.
        max_bytes: of all shards in it.
        attempts: at a fetch that fails.
        first_wait_seconds: before the second attempt; doubled before each further one.
        stall_seconds: without a byte from a store or command, after which an attempt has failed.
        threads: fetches at the same time.
    """

    def __init__(
        self,
        folder: str,
        max_bytes: int,
        *,
        attempts: int = 6,
        first_wait_seconds: float = 1.0,
        stall_seconds: float = 120.0,
        threads: int = 4,
    ) -> None:
        self.folder, self.max_bytes = os.path.abspath(folder), max_bytes
        self._attempts, self._first_wait = attempts, first_wait_seconds
        self._stall_seconds = stall_seconds
        os.makedirs(self.folder, exist_ok=True)
        self._pool = ThreadPoolExecutor(threads, "fetch")
        self._ahead: dict[str, Future[None]] = {}
        self._closing = threading.Event()
        #: Fetches of this process, for tests and reports.
        self.fetched: list[str] = []

    def open(self, shard: Shard) -> PreadFile:
        """A shard as a file here; it is not removed while that is open.

        Raises:
            StorageError: the store does not give it, however often it is asked.
            BadInputError: there is no such shard, or its bytes are not those of the manifest.
        """
        path = self._path(shard)
        while True:
            held = self._hold(path)
            if held is not None:
                with held:
                    os.utime(path)
                    # A duplicate shares the open file, and with it the lock, until it is closed.
                    return PreadFile(path, os.dup(held.fileno()))
            pending = self._ahead.pop(path, None)
            if pending is not None and not pending.cancel():
                pending.result()
                continue
            self._fetch(shard, path)

    def expect(self, shards: Sequence[Shard]) -> None:
        """Fetch ahead, in the background, what of these is remote and not here."""
        for shard in shards:
            path = self._path(shard) if shard.is_remote else ""
            if path in self._ahead and self._ahead[path].done():
                del self._ahead[path]
            if path and path not in self._ahead and not os.path.exists(path):
                self._ahead[path] = self._pool.submit(self._fetch_ahead, shard, path)

    def count(self, shards: Sequence[Shard]) -> list[int]:
        """Samples of shards that nothing describes: fetched once, and the number kept."""
        logger.warning("fetching %d shards to count their samples, once", len(shards))
        return list(self._pool.map(self._count, shards))

    def _count(self, shard: Shard) -> int:
        note = self._path(shard).removesuffix(".tar") + ".count"
        with (
            contextlib.suppress(FileNotFoundError, ValueError),
            open(note, encoding="ascii") as file,
        ):
            return int(file.read())
        held = self.open(shard)
        with open_buffer(held.path) as data:
            number = len(ShardIndex.of_headers(shard.path, data))
        held.close()
        write_atomically(note, str(number).encode())
        return number

    def close(self) -> None:
        """Stop fetching ahead."""
        self._closing.set()
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> "ShardCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _path(self, shard: Shard) -> str:
        """Where a shard lies when it is here: named by its content, or by place and version."""
        what = shard.sha256 or f"{shard.path}\0{shard.num_bytes}\0{shard.version}"
        name = hashlib.blake2b(what.encode(), digest_size=20).hexdigest()
        return os.path.join(self.folder, name + ".tar")

    def _hold(self, path: str) -> IO[bytes] | None:
        """The file, open and locked against removal; None when it is not here (any more)."""
        try:
            file = open(path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            return None
        fcntl.flock(file, fcntl.LOCK_SH)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # removed between the two calls
        return None

    def _fetch_ahead(self, shard: Shard, path: str) -> None:
        """Fetch a shard before it is needed; an error is left to the reader, who meets it again."""
        with contextlib.suppress(StorageError, BadInputError, UserError):
            self._fetch(shard, path)

    def _fetch(self, shard: Shard, path: str) -> None:
        """Bring a shard here, unless it is, asking again while the store fails."""
        bucket = int(os.path.basename(path)[:8], 16) % _BUCKETS
        with self._locked(f".fetch-{bucket:02d}.lock"):
            if os.path.exists(path):
                return
            start, wrong = time.monotonic(), 0
            for attempt in range(1, self._attempts + 1):
                try:
                    self._fetch_once(shard, path)
                except FileNotFoundError as error:
                    raise BadInputError(f"{shard.path}: no such file") from error
                except _WrongBytesError as error:
                    wrong += 1
                    if wrong == _SHA_ATTEMPTS:
                        raise BadInputError(f"{shard.path}: {error}; mmdata validate it") from error
                    problem: Exception = error
                except OSError as error:
                    self._refuse_local(error)
                    problem = error
                else:
                    self.fetched.append(shard.path)
                    return
                if attempt < self._attempts:
                    wait = self._first_wait * 2 ** (attempt - 1)
                    logger.warning("%s: %s; again in %g s", shard.path, problem, wait)
                    if self._closing.wait(wait):
                        break
            seconds = time.monotonic() - start
            raise StorageError(
                f"{shard.path}: not fetched in {attempt} attempts over {seconds:.0f} s: {problem}; "
                "the run goes on from its last checkpoint once the store answers"
            )

    def _refuse_local(self, error: OSError) -> None:
        """A fault of this machine's disk does not go away by asking the store again."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise UserError(
                f"--cache-dir {self.folder}: {error.strerror}; free some space, or lower --cache-gb"
            ) from error

    def _fetch_once(self, shard: Shard, path: str) -> None:
        draft = temporary_path(path)
        try:
            with self._reserve(draft, shard.num_bytes or 0) as file:
                digest, size = self._copy(shard, file)
                file.flush()
                if shard.num_bytes is not None and size != shard.num_bytes:
                    raise _WrongBytesError(f"expected {shard.num_bytes} bytes, got {size}")
                if shard.sha256 is not None and digest != shard.sha256:
                    raise _WrongBytesError(f"expected sha256 {shard.sha256}, got {digest}")
                os.rename(draft, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
            raise
        if shard.num_bytes is None:  # its size was not known before
            with self._locked(_ROOM):
                self._make_room(0)

    def _copy(self, shard: Shard, sink: IO[bytes]) -> tuple[str, int]:
        """Write a shard's bytes; returns their sha256 and number."""
        digest, size = hashlib.sha256(), 0
        with self._source(shard) as source:
            while data := source.read(_CHUNK_BYTES):
                digest.update(data)
                sink.write(data)
                size += len(data)
        sink.truncate(size)
        return digest.hexdigest(), size

    def _source(self, shard: Shard) -> AbstractContextManager[Source]:
        if shard.path.startswith(PIPE):
            return pipe_source(shard.path, self._stall_seconds, self._closing)
        return store_source(shard.path, self._stall_seconds, self._closing)

    def _reserve(self, draft: str, size: int) -> IO[bytes]:
        """A new file, locked so that nobody sweeps it, with a hole of the size that is to come."""
        with self._locked(_ROOM):
            self._make_room(size)
            file = open(draft, "wb")  # noqa: SIM115
            fcntl.flock(file, fcntl.LOCK_SH)
            file.truncate(size)
            return file

    def _make_room(self, size: int) -> None:
        """Remove what was used longest ago until `size` more bytes fit.

        Raises:
            UserError: all that is here is in use.
        """
        held = self._held()
        total = sum(one for _, one, _ in held)
        for path, one, _ in sorted(held, key=lambda entry: entry[2]):
            if total + size <= self.max_bytes:
                return
            total -= one if _remove_unused(path) else 0
        if total + size > self.max_bytes:
            raise UserError(
                f"--cache-dir {self.folder}: {total:,} bytes are in use and {size:,} more do not "
                f"fit in {self.max_bytes:,}; raise --cache-gb, or lower --shuffle-shards"
            )

    def _held(self) -> list[tuple[str, int, float]]:
        """(path, bytes, last use) of all shards and drafts here."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                name = entry.name
                if name.endswith(".tar") or (name.endswith(TEMPORARY_SUFFIX) and ".tar." in name):
                    with contextlib.suppress(FileNotFoundError):
                        info = entry.stat()
                        found.append((entry.path, info.st_size, info.st_mtime))
        return found

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with open(os.path.join(self.folder, name), "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _remove_unused(path: str) -> bool:
    """Remove a file that nobody has locked; whether it is gone."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True
