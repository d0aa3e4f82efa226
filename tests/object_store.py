"""A real server that speaks S3 (moto), on loopback, behind a door that tests can shut and open.

moto keeps its objects in memory and enforces If-None-Match and If-Match. The door is a forwarder of
TCP connections: shut, it cuts those that are open and refuses new ones, as a store does that has
gone away, while the objects stay; stalled, it takes connections and lets nothing through.
"""

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmdata.storage.urls import filesystem

BUCKET = "bucket"
SECRET = "a-secret-that-nobody-may-print"
_START_SECONDS = 300.0


class Door:
    """Forwards connections to a port, while it is open."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self.port = free_port()
        self.open()

    def open(self) -> None:
        """Take connections, at the same port as before."""
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """Cut all connections and refuse new ones."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Take connections, and say nothing."""
        self._flows.clear()

    def flow(self) -> None:
        """Say what was not said while it stalled."""
        self._flows.set()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # shut
            while True:
                inside, _ = listener.accept()
                outside = socket.create_connection(("127.0.0.1", self._target))
                for pair in ((inside, outside), (outside, inside)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with self._lock:
            self._open.add(source)
        try:
            with contextlib.suppress(OSError):
                while data := source.recv(1 << 16):
                    self._flows.wait()
                    sink.sendall(data)
                sink.shutdown(socket.SHUT_WR)
        finally:
            with self._lock:
                self._open.discard(source)
            with contextlib.suppress(OSError):
                source.close()


class ObjectStore:
    """The server, and what tests look at in it."""

    def __init__(self) -> None:
        port = free_port()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self._server = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(port)
        self.door = Door(port)
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.door.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def stop(self) -> None:
        """End the server."""
        self.door.shut()
        self._server.terminate()
        self._server.wait()

    @property
    def fs(self) -> Any:
        """fsspec's view of it."""
        return filesystem("s3://")

    def put_folder(self, folder: Path, url: str) -> None:
        """Upload every file of a folder."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.fs.pipe_file(f"{url}/{path.relative_to(folder)}", path.read_bytes())

    def snapshot(self, url: str) -> dict[str, str]:
        """sha256 of every object below a URL, but for the plan (it holds paths and times)."""
        prefix = url.partition("://")[2].rstrip("/") + "/"
        return {
            name.removeprefix(prefix): hashlib.sha256(self.fs.cat_file(name)).hexdigest()
            for name in sorted(self.fs.find(url))
            if not name.endswith("/plan.json")
        }


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(port: int) -> None:
    """Until something listens at a port."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@contextlib.contextmanager
def running_store() -> Iterator[ObjectStore]:
    """A server for a while, with the environment variables that lead to it."""
    store = ObjectStore()
    before = {name: os.environ.get(name) for name in store.environment}
    os.environ.update(store.environment)
    try:
        store.fs.call_s3("create_bucket", Bucket=BUCKET)
        yield store
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        store.stop()
