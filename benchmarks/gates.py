"""Goals as gates: what was measured beside what was aimed at, and whether it got there.

Each part of the benchmark returns its gates; it prints them itself when it runs alone, and
`python -m benchmarks` prints those of all parts again at the end. The load average stands beside
them: on a machine that does other things at the same time, only ratios of paired runs mean much.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Gate:
    """One goal.

    Attributes:
        name: what was measured.
        value: what came out.
        aim: what was to come out.
        at_most: whether the aim is an upper bound; else it is a lower one.
        unit: of both, behind the numbers.
    """

    name: str
    value: float
    aim: float
    at_most: bool = False
    unit: str = ""

    @property
    def passed(self) -> bool:
        """Whether the goal was met."""
        return self.value <= self.aim if self.at_most else self.value >= self.aim

    def line(self) -> str:
        """For a person."""
        verdict = "PASS" if self.passed else "FAIL"
        bound = "at most" if self.at_most else "at least"
        return f"{verdict}  {self.name}: {self.value:.2f}{self.unit} ({bound} {self.aim:g})"


def load_average() -> str:
    """The machine's, of the last 1, 5 and 15 minutes."""
    loads = ", ".join(f"{load:.2f}" for load in os.getloadavg())
    return f"load average {loads} on {os.cpu_count()} cores"


def print_gates(gates: Iterable[Gate]) -> None:
    """One line a gate, and the load average."""
    for gate in gates:
        print(gate.line(), flush=True)
    print(load_average(), flush=True)


def median_ratio(above: Iterable[float], below: Iterable[float]) -> float:
    """The median of the ratios of pairs, each measured one right after the other."""
    return median(one / other for one, other in zip(above, below, strict=True))
