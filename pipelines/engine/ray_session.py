"""A connection to Ray for the time of one run: start, a look at the cluster now and then, end.

The look is our own, since Ray ends a process whose cluster has lost its head after 60 s, without a
word that Python could catch; the knock costs 1 ms every 5 s. The tasks are in `ray_tasks.py`.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from mmdata.errors import UserError
from pipelines.engine.events import Alive, ClusterLostError, Event
from pipelines.engine.ray_tasks import Tasks
from pipelines.engine.ray_tokens import (
    Held,
    needless_token,
    sends_token,
    standard_error_held,
    token_trouble,
)

Unit = TypeVar("Unit")
Result = TypeVar("Result")

_OBJECT_STORE_BYTES = 100 * 2**20
_CONNECT_SECONDS = 10.0
#: Between two looks at the cluster: is its head there, has it grown?
_LOOK_SECONDS = 5.0
#: Looks in a row at which the head does not answer, after which it is given up. Ray itself ends
#: the process without a word after 60 s.
_LOST_LOOKS = 4
_ANSWER_SECONDS = 3.0


class Service(Protocol):
    """What Ray holds beside the tasks, for them to call; without Ray it is not started."""

    @property
    def num_cpus(self) -> int:
        """Cores that it takes."""
        ...

    @property
    def bytes_in_flight(self) -> int:
        """Bytes that calls to it may take in the object store at a time."""
        ...

    def start(self) -> None:
        """Called when Ray is there, before the first task."""
        ...

    def stop(self) -> None:
        """Called before Ray is stopped."""
        ...


class RaySession:
    """A connection to Ray for the time of one run."""

    def __init__(
        self,
        workers: int,
        address: str | None,
        service: Service | None = None,
        stall_seconds: float = 0.0,
    ) -> None:
        self._workers = workers
        self._address = address
        self._service = service
        self._stall_seconds = stall_seconds
        self._head = ""

    def __enter__(self) -> Self:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # The accelerator variables of this process are kept for the workers as they are.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self._address is None:
            options |= {
                "address": "local",
                "num_cpus": self._workers + (self._service.num_cpus if self._service else 0),
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES
                + (self._service.bytes_in_flight if self._service else 0),
            }
        else:
            _check_reachable(self._address)
            options["address"] = self._address
        on_terminate = signal.getsignal(signal.SIGTERM)
        try:
            _connect(options, self._address)
        except SystemExit as error:  # SIGTERM meanwhile, which Ray answers with an exit of its own
            raise KeyboardInterrupt from error
        with suppress(ValueError):  # not the main thread: no handler was changed
            signal.signal(signal.SIGTERM, on_terminate)
        # Of a node that is lost Ray prints 20 lines of log to stdout, and asks nothing but this
        # flag of its own first; the report says it in one line.
        vars(ray._private.worker)["_worker_logs_enabled"] = False
        self._head = str(ray.get_runtime_context().gcs_address)
        if self._service is not None:
            try:
                self._service.start()
            except BaseException:
                ray.shutdown()
                raise
        return self

    def run(
        self, work: Callable[[Unit], Iterator[Result | Alive]], units: Sequence[Unit]
    ) -> Iterator[tuple[int, Result | Event]]:
        """Keep the workers busy until every unit has ended.

        Raises:
            ClusterLostError: the head of the cluster does not answer any more.
        """
        own = self._workers if self._address is None else 0
        tasks = Tasks(work, units, self._stall_seconds, own)
        cluster = _Cluster(self._head, self._address, self._workers)
        try:
            while tasks.left:
                cluster.look()
                tasks.submit(cluster.in_flight)
                yield from tasks.advance()
        finally:
            if not cluster.lost:
                tasks.cancel_all()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import ray

        # What a cluster without a head is asked would wait for it; leaving takes 5 s as it is.
        if self._service is not None and not isinstance(error, ClusterLostError):
            self._service.stop()
        ray.shutdown()


def cluster_gpus(address: str) -> int:
    """GPUs of a running cluster, by a connection that is made for the question.

    Raises:
        UserError: the cluster cannot be reached.
    """
    import ray

    with RaySession(0, address):
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources.get("GPU", 0))


class _Cluster:
    """The cluster as it is from time to time."""

    def __init__(self, head: str, address: str | None, workers: int) -> None:
        self._head = head
        self._where = address or "on this machine"
        # A Ray of our own has as many cores as there are workers: one task more waits for each.
        # On a cluster the number of tasks is all that holds a run to its number of workers.
        self._fixed = 2 * workers if address is None else workers
        self._next_look = 0.0
        self._unanswered = 0
        self._cores = 1

    @property
    def lost(self) -> bool:
        """Whether its head has not answered for long."""
        return self._unanswered >= _LOST_LOOKS

    @property
    def in_flight(self) -> int:
        """Tasks to have at Ray; where no number was asked for, so many that the cluster grows."""
        return self._fixed or 2 * self._cores

    def look(self) -> None:
        """See whether its head is there and how many cores it has, once in a while.

        Raises:
            ClusterLostError: the head has not answered several times in a row.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        if not _answers(self._head):
            self._unanswered += 1
            if self.lost:
                raise ClusterLostError(
                    f"Ray {self._where}: its head at {self._head} is gone; what is written stays: "
                    "run the same command again when the cluster is up"
                )
            return
        self._unanswered = 0
        if not self._fixed:
            import ray

            resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            self._cores = max(1, int(resources.get("CPU", 1)))


def _connect(options: dict[str, Any], address: str | None) -> None:
    """Start Ray, or connect to a cluster.

    Raises:
        UserError: that did not come about, or tasks would get no answer.
    """
    import ray

    held = Held()
    try:
        if address is not None:
            with standard_error_held() as held:
                _ask_head(address)
        ray.init(**options)
    # OSError: a token cannot be kept, since the home folder is read-only, or a connection fails.
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        trouble = token_trouble(address, error, held.text) if address is not None else None
        if trouble is not None:
            raise UserError(trouble) from error
        sys.stderr.write(held.text)
        raise UserError(
            f"Ray {address or 'on this machine'}: could not start or connect: "
            f"{' '.join(str(error).split())}; --workers 0 converts without Ray"
        ) from error
    if address is not None and sends_token():
        trouble = needless_token(address, str(ray.get_runtime_context().gcs_address))
        if trouble is not None:
            ray.shutdown()
            raise UserError(trouble)


def _ask_head(address: str) -> None:
    """Call the head as `ray.init` will: an answer about tokens comes at once, from that after 20 s.

    Raises:
        AuthenticationError: Ray's, where there is no token to send, or not the one that is wanted.
    """
    try:
        from ray._private.authentication import authentication_token_setup as tokens
    except ImportError:  # a Ray without tokens
        return
    from ray._private.services import canonicalize_bootstrap_address
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    if "://" in address:
        return
    enable = getattr(tokens, "maybe_enable_token_auth_if_token_available", None)
    if address == "auto" and enable is not None:
        enable(warn_if_disabled=False)
    # First, since without a token to send the call ends the process.
    tokens.ensure_token_if_auth_enabled(None, create_token_if_missing=False)
    head = canonicalize_bootstrap_address(address)
    if head is not None:
        GcsClient(address=head)


def _check_reachable(address: str) -> None:
    """Refuse a cluster that nobody answers for; Ray would wait for it for minutes.

    Raises:
        UserError: nothing listens there.
    """
    try:
        _knock(address, _CONNECT_SECONDS)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"Ray {address}: could not connect: {error}; is the cluster up, and is this its port? "
            "--workers 0 converts without Ray"
        ) from error


def _answers(address: str) -> bool:
    try:
        _knock(address, _ANSWER_SECONDS)
    except OSError:
        return False
    return True


def _knock(address: str, seconds: float) -> None:
    """Open a connection and close it; without a host and a port (`auto`) there is no telling."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
