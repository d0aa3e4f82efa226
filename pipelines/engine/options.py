"""What every command that runs units can be told of the engine that runs them."""

from dataclasses import dataclass
from typing import ClassVar

from mmdata.errors import UserError
from mmdata.option_checks import Options, check_least


@dataclass(frozen=True, kw_only=True)
class RayOptions(Options):
    """Which Ray the work is done at."""

    section: ClassVar[str] = "Workers"

    ray_address: str | None = None
    """Address of a running Ray cluster. Default: a Ray of its own on this machine."""


@dataclass(frozen=True, kw_only=True)
class WorkerOptions(RayOptions):
    """How many processes work."""

    workers: int | None = None
    """Ray worker processes; 0: in this process. Default: all cores, 0 for small jobs."""

    def _check(self) -> None:
        check_least(self, 0, "workers")


@dataclass(frozen=True, kw_only=True)
class StallOptions(Options):
    """How long a worker may show no sign of life."""

    section: ClassVar[str] = RayOptions.section

    stall_timeout: float = 600.0
    """Seconds without progress until a unit at Ray is cancelled and run once more; 0: never."""

    def _check(self) -> None:
        check_stall_timeout(self.stall_timeout)


@dataclass(frozen=True, kw_only=True)
class EngineOptions(WorkerOptions, StallOptions):
    """How the engine runs units, the same in every command that has them."""


def check_stall_timeout(seconds: float) -> None:
    """Refuse a patience shorter than the time between two signs of life."""
    if seconds != 0 and not seconds >= 5.0:
        raise UserError(f"--stall-timeout {seconds:g}: expected 0 (off) or at least 5 seconds")
