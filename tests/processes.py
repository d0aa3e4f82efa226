"""Conversions as processes that a test stops, kills and looks into.

* `hooked`: a command with some statements run before it, in its process.
* `SLOW`: statements that make every unit long, so that it can be hit in the middle.
* `starter`: starts commands in process groups of their own, and ends what is left of them.
* `committed`, `wait_for_shards`: how far a run is, by its output.
* `descendants`, `wait_until_gone`: the processes below one.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.corpus import environment

#: A third of a second an event; one record a shard makes that an event or two.
SLOW = """
import time
from pipelines.conversion import run as convert
from pipelines.conversion.unit import convert_unit
def slow(task):
    for event in convert_unit(task):
        time.sleep(0.3)
        yield event
convert.convert_unit = slow
"""

Start = Callable[[Sequence[str]], "subprocess.Popen[str]"]


def hooked(command: Sequence[str], before: str) -> list[str]:
    """A command of this checkout, with statements before it."""
    script = (
        f"{before}\nimport sys\nfrom mmdata.cli.main import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    return [sys.executable, "-c", script, *command[3:]]


def heed_interrupts() -> None:
    """In a child: a test run in the background has SIGINT ignored, and hands that down."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def starter() -> Iterator[Start]:
    """Starts processes; what is left of them ends with the context."""
    started: list[subprocess.Popen[str]] = []

    def begin(command: Sequence[str]) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            start_new_session=True,
            preexec_fn=heed_interrupts,
        )
        started.append(process)
        return process

    try:
        yield begin
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.communicate()


def committed(output: Path) -> int:
    return len(list(output.glob("[0-9]*.json")))


def wait_for_shards(process: "subprocess.Popen[str]", output: Path, least: int = 5) -> None:
    """Until some shards are committed, and not all."""
    deadline = time.monotonic() + 300
    while committed(output) < least:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def descendants(pid: int) -> list[tuple[int, str]]:
    """(pid, command) of all processes below one."""
    parents, commands = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
            commands[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
        parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found, level = [], {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found += [(child, commands[child].decode("utf-8", "replace")) for child in sorted(level)]
    return found


def wait_until_gone(processes: list[tuple[int, str]]) -> None:
    """The workers that a driver leaves end by themselves; agents of Ray that linger are ended."""
    deadline = time.monotonic() + 300
    workers = [pid for pid, command in processes if command.startswith("ray::_attempt")]
    while any(Path(f"/proc/{pid}/cwd").exists() for pid in workers):
        assert time.monotonic() < deadline, "the workers of a run that has ended go on"
        time.sleep(0.1)
    for pid, command in processes:
        with contextlib.suppress(OSError):
            if (
                command.startswith("ray::")
                and b"ray::" in Path(f"/proc/{pid}/cmdline").read_bytes()
            ):
                os.kill(pid, signal.SIGKILL)
