"""Where values of a run go: one interface, a writer for each place.

A writer is told values of a step (nested by meaning: `{"losses": {"web": 2.1}}`), events, and when
the run is over. What a place needs beyond that is its writer's own business. The packages of
TensorBoard and W&B load only when asked for, and `check_services` says before the run starts which
one is missing.
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from flamingo.telemetry.jsonl import finite, forget_after
from flamingo.telemetry.names import EVENTS_NAME, METRICS_NAME, TELEMETRY_FOLDER
from mmdata.dependencies import require
from mmdata.errors import UserError
from mmdata.storage.atomic import write_atomically


class Writer(Protocol):
    """A place that values go to."""

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Take the values of an interval.

        Args:
            step: the last of it.
            values: nested mappings with numbers at the leaves.
        """

    def event(self, step: int, kind: str, details: Mapping[str, Any]) -> None:
        """Take something that happened.

        Args:
            step: after which it did.
            kind: resumed, skipped, saved, validation or preempted.
            details: of it.
        """

    def close(self) -> None:
        """The run is over, or stops."""


class JsonLinesWriter:
    """`metrics.jsonl` and `events.jsonl` in the run's folder; each line is on its way to the disk
    when the call returns."""

    def __init__(self, folder: str, *, done: int) -> None:
        paths = [os.path.join(folder, name) for name in (METRICS_NAME, EVENTS_NAME)]
        for path in paths:
            forget_after(path, done)
        self._metrics, self._events = (
            open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by `close`)
            for path in paths
        )

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        self._metrics.write(json.dumps(finite({"step": step, **values})) + "\n")
        self._metrics.flush()

    def event(self, step: int, kind: str, details: Mapping[str, Any]) -> None:
        line = finite({"step": step, "event": kind, **details})
        self._events.write(json.dumps(line) + "\n")
        self._events.flush()

    def close(self) -> None:
        self._metrics.close()
        self._events.close()


class TensorBoardWriter:
    """Event files in `telemetry/tensorboard`; steps that are repeated after a resume go."""

    def __init__(self, folder: str, *, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        place = os.path.join(folder, TELEMETRY_FOLDER, "tensorboard")
        self._writer = SummaryWriter(place, purge_step=done + 1 if done else None)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        for name, value in flattened(values):
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def event(self, step: int, kind: str, details: Mapping[str, Any]) -> None:
        self._writer.add_text(f"events/{kind}", json.dumps(dict(details)), step)

    def close(self) -> None:
        self._writer.close()


class WandbWriter:
    """A run at Weights & Biases; a resume goes on with the same one, by the id that is kept.

    Offline (`--offline`, or WANDB_MODE=offline) the run is written below `telemetry/wandb`, for
    `wandb sync`.

    Raises:
        UserError: W&B does not let the run start.
    """

    def __init__(
        self,
        folder: str,
        *,
        project: str | None,
        entity: str | None,
        offline: bool,
        config: Mapping[str, Any],
    ) -> None:
        import wandb

        place = os.path.join(folder, TELEMETRY_FOLDER)
        os.makedirs(place, exist_ok=True)
        try:
            self._run = wandb.init(
                project=project or "mmdata",
                entity=entity,
                name=os.path.basename(os.path.normpath(folder)),
                id=_kept_id(os.path.join(place, "wandb-id")),
                resume=None if _is_offline(offline) else "allow",
                dir=place,
                config=dict(config),
                mode="offline" if offline else None,
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.errors.Error as error:
            raise UserError(
                f"--report-to wandb: {str(error).strip().splitlines()[0]}; `wandb login` first, or "
                "WANDB_MODE=offline"
            ) from error

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        self._run.log(dict(flattened(values)), step=step)

    def event(self, step: int, kind: str, details: Mapping[str, Any]) -> None:
        self._run.log({f"events/{kind}": 1}, step=step)

    def close(self) -> None:
        self._run.finish()


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """`{"losses": {"web": 2.1}}` as ("losses/web", 2.1); what is no number is left out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", float(value)


def check_services(services: Sequence[str]) -> None:
    """Raises MissingExtraError where the package of a service is not installed."""
    for name in services:
        require(name, (name,), f"mmdata train --report-to {name}")


def _is_offline(asked: bool) -> bool:  # noqa: FBT001 (an answer, not a switch)
    return asked or os.environ.get("WANDB_MODE") == "offline"


def _kept_id(path: str) -> str:
    """The id of the run at W&B, made at its first start."""
    if os.path.exists(path):
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    made = secrets.token_hex(4)
    write_atomically(path, made.encode() + b"\n")
    return made
