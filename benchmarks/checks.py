"""A list of checks of which none stops the others, and what came of each.

A process of its own takes the checks one after the other. Where it fails one, dies in one or does
not come back from one in time, it is ended, and a fresh one goes on with the next: after an error
on a GPU a process gets nothing but errors, and one that hangs there cannot be asked to stop.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["passed", "failed", "skipped"]
#: Beside a check's own limit, for the first of a process: to start and to import.
START_SECONDS = 180.0
_MAX_CHARS = 500


class SkippedError(Exception):
    """A check that cannot be made here; the text says why."""


@dataclass(frozen=True, slots=True)
class Check:
    """Something that is to hold.

    Attributes:
        name: of it.
        limit_seconds: after which it is given up.
        run: returns what was found, in a line; raises what is wrong, or `SkippedError`.
        is_last: whether its process makes no check after it.
    """

    name: str
    limit_seconds: float
    run: Callable[[], str]
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """What came of a check.

    Attributes:
        name: of the check.
        verdict: whether it holds.
        detail: what was found, what is wrong, or why it was left out.
        seconds: that it took.
    """

    name: str
    verdict: Verdict
    detail: str
    seconds: float

    def line(self) -> str:
        """For a person."""
        return f"{self.verdict:<8}{self.seconds:>6.0f} s  {self.name}: {self.detail}"


def run_check(check: Check) -> Row:
    """Make one check in this process; the traceback of what fails goes to standard error."""
    start = time.monotonic()
    verdict: Verdict = "passed"
    try:
        detail = check.run()
    except SkippedError as reason:
        verdict, detail = "skipped", str(reason)
    # The border of a check: whatever is wrong is its row, and the others are made.
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        verdict, detail = "failed", f"{type(error).__name__}: {error}"
    return Row(check.name, verdict, _one_line(detail), time.monotonic() - start)


def run_checks(
    checks_of: Callable[[Any], Sequence[Check]],
    given: Any,
    *,
    log: Path,
    tell: Callable[[Row], None],
    start_seconds: float = START_SECONDS,
) -> list[Row]:
    """Make all checks, whatever becomes of each.

    Args:
        checks_of: makes the checks from `given`, here and in each process; the same ones.
        given: picklable.
        log: file for what the checks print.
        tell: is told of each row as it comes.
        start_seconds: what a process may take to start, beside the limit of its first check.
    """
    left = list(checks_of(given))
    rows: list[Row] = []
    while left:
        made = _rows_of_a_process(checks_of, given, left, log, start_seconds, tell)
        rows += made
        left = left[len(made) :]
    return rows


def _rows_of_a_process(
    checks_of: Callable[[Any], Sequence[Check]],
    given: Any,
    left: Sequence[Check],
    log: Path,
    start_seconds: float,
    tell: Callable[[Row], None],
) -> list[Row]:
    """Rows of the first checks that are left, up to one that fails."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    names = [check.name for check in left]
    process = context.Process(target=_work, args=(checks_of, given, names, str(log), sender))
    process.start()
    sender.close()
    rows: list[Row] = []
    extra = start_seconds
    try:
        for check in left:
            row = _received(receiver, check, extra)
            if row is None:
                process.join(_END_SECONDS)
                row = Row(check.name, "failed", f"its process {_ended(process.exitcode)}", 0.0)
            rows.append(row)
            tell(row)
            extra = 0.0
            if row.verdict == "failed" or check.is_last:
                break
    finally:
        receiver.close()
        _end(process)
    return rows


_END_SECONDS = 10.0


def _received(receiver: Connection, check: Check, extra: float) -> Row | None:
    """The row of a check; None where its process is no more."""
    start = time.monotonic()
    try:
        if receiver.poll(check.limit_seconds + extra):
            row: Row = receiver.recv()
            return row
    except (EOFError, OSError):
        return None
    seconds = time.monotonic() - start
    detail = f"no answer within {check.limit_seconds:g} s: given up"
    return Row(check.name, "failed", detail, seconds)


def _ended(code: int | None) -> str:
    if code is None:
        return "gives no answer"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _end(process: Any) -> None:
    """End a process with all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _work(
    checks_of: Callable[[Any], Sequence[Check]],
    given: Any,
    names: Sequence[str],
    log: str,
    sender: Connection,
) -> None:
    """In a process: make the checks, up to one that fails, and send a row for each."""
    os.setsid()
    with open(log, "ab", buffering=0) as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    checks = {check.name: check for check in checks_of(given)}
    for name in names:
        print(f"== {name}", flush=True)
        row = run_check(checks[name])
        sys.stdout.flush()
        sender.send(row)
        if row.verdict == "failed" or checks[name].is_last:
            break
    sender.close()


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _MAX_CHARS else f"{flat[: _MAX_CHARS - 1]}…"
