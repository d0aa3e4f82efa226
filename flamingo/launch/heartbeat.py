"""Signs of life of the ranks, so that one that hangs or dies can be named by the others.

A thread of each rank writes what the rank does to `RUN/logs/rank-N.json`, twice a second at most
and every two seconds at least, and the ranks read each other's files when one waits in vain. Files
of the run's folder rather than the process group's store: the store may live in the very rank that
hangs, and the launcher may sit on another node. A step costs three settings of an event.

A rank that waited in vain mostly ends by an error of its backend. One that does not, since a thread
of its own waits on for the rank that is gone, is ended here.

Ages are differences of modification times, which one file server sets for all ranks: clocks of
hosts that disagree do not matter.
"""

import faulthandler
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mmdata.errors import EXIT_FINDINGS

FOLDER = "logs"
#: How ranks tell that our launcher started them, which shows the one error that counts.
LAUNCHED = "MMDATA_LAUNCHED"
#: Seconds between signs of life, at most.
INTERVAL_SECONDS = 2.0
#: And at least, while steps go by.
_REST_SECONDS = 0.5
#: Beyond the timeout, for the backend's own error to end the process.
_GRACE_SECONDS = 15.0
_ALL_ALIKE = "each of"
#: A rank that has missed so many signs is silent.
_MISSED = 2.5

#: Why a rank ended: by an error that says what is wrong, by one that nobody expected, or because
#: it lost the other ranks.
Cause = Literal["", "told", "unexpected", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """What a rank last said of itself.

    Attributes:
        rank: whose sign it is.
        host: where it runs.
        pid: there.
        launch: of which start of the ranks; see `launch_id`.
        marks: how often it has said what it does; ranks do the same things in the same order.
        step: the optimizer step that it is at, from 1; 0 before the first.
        doing: in words.
        stuck_seconds: for how long it had done that, when it said so.
        finding: which rank it waits for, once it has waited too long.
        exit_code: how it ended; None while it runs.
        cause: why it ended.
        text: the same in a line; empty where another rank says it.
        age_seconds: of the sign, against the newest of all ranks.
    """

    rank: int
    host: str
    pid: int
    launch: str = ""
    marks: int = 0
    step: int = 0
    doing: str = "starts"
    stuck_seconds: float = 0.0
    finding: str = ""
    exit_code: int | None = None
    cause: Cause = ""
    text: str = ""
    age_seconds: float = 0.0

    @property
    def place(self) -> str:
        """Which process it is, and where."""
        return f"rank {self.rank} (process {self.pid} on {self.host})"

    @property
    def at(self) -> str:
        """How far it is."""
        return (
            f"at step {self.step} ({self.doing})" if self.step else f"at its start ({self.doing})"
        )


class Heartbeat:
    """The signs of life of this rank, given by a thread between `start` and `end`."""

    def __init__(
        self, run: str, *, rank: int, size: int, timeout_seconds: float, launch: str = ""
    ) -> None:
        self.folder = os.path.join(run, FOLDER)
        self.rank = rank
        self.size = size
        self.interval_seconds = max(min(INTERVAL_SECONDS, timeout_seconds / 4), 2 * _REST_SECONDS)
        self._timeout = timeout_seconds
        self._launch = launch
        self._finding = ""
        self._state = (0, 0, "starts", time.monotonic())
        self._news = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Give the first sign, and go on giving them."""
        os.makedirs(self.folder, exist_ok=True)
        self._write()
        self._thread.start()

    def mark(self, step: int, doing: str) -> None:
        """Say what the rank does from now on; every rank says the same things in the same order.

        Said again it is a sign of progress, of which ranks may give as many as they like.
        """
        marks, *before, _ = self._state
        self._state = (marks + (before != [step, doing]), step, doing, time.monotonic())
        self._news.set()

    def end(self, exit_code: int, cause: Cause = "", text: str = "") -> None:
        """Give the last sign."""
        self._ending.set()
        self._news.set()
        self._thread.join()
        self._write(exit_code=exit_code, cause=cause, text=text)

    def waited_for(self) -> str:
        """Which rank the others wait for, in a line; asked by one that waited in vain."""
        self._write()
        signs = read_signs(self.folder, self._launch)
        return name_waited_for(signs, size=self.size, silent_seconds=self._silent_seconds)

    def gone(self) -> str:
        """Which rank is gone, in a line; asked by one whose connections broke.

        Takes some seconds: a rank that is gone shows by the signs that it does not give.
        """
        time.sleep(self._silent_seconds + self.interval_seconds)
        self._write()
        signs = read_signs(self.folder, self._launch)
        return name_gone(signs, size=self.size, silent_seconds=self._silent_seconds)

    @property
    def _silent_seconds(self) -> float:
        return _MISSED * self.interval_seconds

    def _beat(self) -> None:
        last_error = ""
        while not self._ending.wait(_REST_SECONDS):
            self._news.wait(self.interval_seconds - _REST_SECONDS)
            self._news.clear()
            try:
                self._write()
                self._look_at_the_clock()
            except OSError as error:  # a disk that is full must not end the run
                if str(error) != last_error:
                    last_error = str(error)
                    sys.stderr.write(f"mmdata: rank {self.rank} gives no sign: {error}\n")

    def _look_at_the_clock(self) -> None:
        """Say once who is waited for, since a backend that aborts the process says nothing."""
        step, since = self._state[1], self._state[3]
        stuck_seconds = time.monotonic() - since
        # Before the first step models load, for as long as they take.
        if self.size == 1 or not step or stuck_seconds <= self._timeout:
            self._finding = ""
        elif not self._finding:
            self._finding = self.waited_for()
            self._write()
            told = f"no progress on rank {self.rank} for {stuck_seconds:.0f} s"
            sys.stderr.write(f"mmdata: {told}: {self._finding}\n")
            sys.stderr.flush()
            with open(log_path(self.folder, self.rank), "a", encoding="utf-8") as file:
                faulthandler.dump_traceback(file)
        elif stuck_seconds > self._timeout + max(_GRACE_SECONDS, self._timeout / 4):
            self._end_if_in_vain()

    def _end_if_in_vain(self) -> None:
        """End the process, unless all ranks are equally far: then they may just be slow."""
        self._finding = self.waited_for()
        if not self._finding.startswith(_ALL_ALIKE):
            self._write(exit_code=EXIT_FINDINGS, cause="lost", text=self._finding)
            os._exit(EXIT_FINDINGS)  # the main thread does not come back

    def _write(self, **end: Any) -> None:
        marks, step, doing, since = self._state
        sign = Sign(
            rank=self.rank,
            host=socket.gethostname(),
            pid=os.getpid(),
            launch=self._launch,
            marks=marks,
            step=step,
            doing=doing,
            stuck_seconds=round(time.monotonic() - since, 1),
            finding=self._finding,
            **end,
        )
        path = os.path.join(self.folder, f"rank-{self.rank}.json")
        # One draft a thread, since both write; not synced, being of use to the living only.
        draft = f"{path}.{threading.get_ident()}.tmp"
        with open(draft, "w", encoding="utf-8") as file:
            json.dump(asdict(sign), file)
        os.replace(draft, path)


def log_path(folder: str, rank: int) -> str:
    """Where a rank's own output goes."""
    return os.path.join(folder, f"rank-{rank}.log")


def launch_id(environ: Mapping[str, str]) -> str:
    """Tells one start of the ranks from another, alike on all of them."""
    names = (
        *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT"),
        *("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"),
    )
    return "/".join(environ.get(name, "") for name in names)


def read_signs(folder: str, launch: str | None = None, *, since: float = 0.0) -> list[Sign]:
    """The last signs of all ranks, in order; of one start, or those younger than a time."""
    found = []
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if name.startswith("rank-") and name.endswith(".json"):
            path = os.path.join(folder, name)
            with open(path, encoding="utf-8") as file:
                changed = os.fstat(file.fileno()).st_mtime
                record = json.load(file)
            if changed >= since and launch in (None, record["launch"]):
                found.append((changed, record))
    newest = max((changed for changed, _ in found), default=0.0)
    signs = [Sign(**record | {"age_seconds": newest - changed}) for changed, record in found]
    return sorted(signs, key=lambda sign: sign.rank)


def name_waited_for(signs: Sequence[Sign], *, size: int, silent_seconds: float) -> str:
    """Which rank keeps the others waiting: gone, silent, or behind, in this order."""
    found = name_gone(signs, size=size, silent_seconds=silent_seconds)
    if found:
        return found
    behind = min(signs, key=lambda sign: (sign.marks, -sign.stuck_seconds))
    told = f"has been {behind.at} for {behind.stuck_seconds:.0f} s"
    if any(sign.marks > behind.marks for sign in signs):
        return f"{behind.place} {told}, and the others wait for it"
    return (
        f"{_ALL_ALIKE} the {size} ranks {told}: they wait for each other, or the network between "
        "them or a device does not answer"
    )


def name_gone(signs: Sequence[Sign], *, size: int, silent_seconds: float) -> str:
    """Which ranks have ended by themselves or give no sign of life; empty where none has."""
    ended = [
        f"{sign.place} ended {sign.at}" + (f": {sign.text}" if sign.text else "")
        for sign in signs
        if sign.exit_code is not None and sign.cause != "lost"
    ]
    silent = [
        f"{sign.place} has given no sign of life for {sign.age_seconds:.0f} s; last seen {sign.at}"
        for sign in signs
        if sign.exit_code is None and sign.age_seconds > silent_seconds
    ]
    unheard = sorted(set(range(size)) - {sign.rank for sign in signs})
    never = [f"rank {rank} has given no sign of life at all" for rank in unheard]
    return _first_few(ended or silent or never)


def _first_few(lines: Sequence[str], most: int = 3) -> str:
    more = len(lines) - most
    return "; ".join([*lines[:most], *([f"and {more} more"] if more > 0 else [])])
