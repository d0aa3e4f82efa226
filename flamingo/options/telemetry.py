"""What a run can be told of what it tells; the standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from mmdata.errors import UserError
from mmdata.option_checks import Options, check_least

#: What --report-to takes; each is the extra that brings its package of the same name.
SERVICES = ("tensorboard", "wandb")


@dataclass(frozen=True, kw_only=True)
class TelemetryOptions(Options):
    """What the console shows and which services are told a run's values."""

    section: ClassVar[str] = "Console and telemetry"

    logging_steps: int = 10
    """Optimizer steps between lines of the console."""
    report_to: str = ""
    """Services that are told the run's values, beside its own files: tensorboard,wandb."""
    report_to_wandb: bool = False
    """OpenFlamingo's name for --report-to wandb."""
    wandb_project: str | None = None
    """Project at W&B; mmdata when not given."""
    wandb_entity: str | None = None
    """User or team at W&B; the one who is logged in when not given."""
    telemetry_seconds: float = 10.0
    """Seconds between samples of GPU and host; 0: none."""

    def _check(self) -> None:
        check_least(self, 1, "logging_steps")
        check_least(self, 0, "telemetry_seconds")
        for name in self.services:
            if name not in SERVICES:
                raise UserError(f"--report-to {name}: expected {' or '.join(SERVICES)}")

    @property
    def services(self) -> tuple[str, ...]:
        """Services of --report-to and --report-to-wandb."""
        named = [name.strip() for name in self.report_to.split(",") if name.strip()]
        if self.report_to_wandb and "wandb" not in named:
            named.append("wandb")
        return tuple(named)
