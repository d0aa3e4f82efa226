"""What a command and all processes that it starts take: CPU seconds and peak memory, from /proc.

A command that starts Ray is a family: driver, raylet, GCS, agents, workers. The kernel's own sums
leave out children that nobody waits for, as Ray's are; so the family is looked at ten times a
second, and each process counts with what it had when it was last seen (at most 0.1 s is lost of
each). Processes whose parent ended stay in the family, since this one adopts them. Linux only.
"""

import ctypes
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

_PR_SET_CHILD_SUBREAPER = 36
_INTERVAL_SECONDS = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Seen:
    """One process when it was last seen."""

    command: str
    cpu_seconds: float
    peak_bytes: int


@dataclass(slots=True)
class Family:
    """What a command came to.

    Attributes:
        output: its standard output.
        seconds: from its start to its end.
        processes: all that were seen, by (pid, start time).
    """

    output: str
    seconds: float
    processes: dict[tuple[int, str], Seen] = field(default_factory=dict)

    @property
    def cpu_seconds(self) -> float:
        """Of all processes, user and system."""
        return sum(seen.cpu_seconds for seen in self.processes.values())

    def workers(self) -> list[Seen]:
        """Ray's worker processes that were given work or waited for some."""
        names = ("ray::IDLE", "ray::_attempt")
        return [seen for seen in self.processes.values() if seen.command.startswith(names)]


def watch(command: Sequence[str]) -> Family:
    """Run a command to its end and count its family.

    Raises:
        SystemExit: it failed.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    processes: dict[tuple[int, str], Seen] = {}
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:  # its output is a line: it never fills the pipe
            _look(processes)
            time.sleep(_INTERVAL_SECONDS)
        seconds = time.perf_counter() - start
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return Family(output, seconds, processes)


def peak_bytes(pid: str = "self") -> int:
    """High-water mark of a process's memory (`ru_maxrss` can be the parent's on Linux)."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0  # a process that has ended and is not waited for yet


def _look(processes: dict[tuple[int, str], Seen]) -> None:
    """Note what every descendant of this process has taken so far."""
    parents: dict[int, int] = {}
    figures: dict[int, tuple[str, float]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    fields = file.read().rpartition(") ")[2].split()
            except OSError:  # it has ended
                continue
            parents[int(name)] = int(fields[1])
            figures[int(name)] = (fields[19], (int(fields[11]) + int(fields[12])) / _TICKS)
    family = {os.getpid()}
    while more := {pid for pid in parents if parents[pid] in family} - family:
        family |= more
    for pid in family - {os.getpid()}:
        started, cpu_seconds = figures[pid]
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                command = file.read().replace("\0", " ").strip()
            peak = peak_bytes(str(pid))
        except OSError:
            continue
        if peak:
            processes[pid, started] = Seen(command, cpu_seconds, peak)
