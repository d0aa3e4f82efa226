"""All sections of a run's options; checks across sections and the trainer's parts take these."""

from dataclasses import dataclass

from flamingo.models.flamingo.options import FlamingoOptions
from flamingo.modules.adapter_options import AdapterOptions
from flamingo.train.options.data import (
    DataOptions,
    ReadingOptions,
    SelectionOptions,
    ValidationOptions,
)
from flamingo.train.options.hardware import HardwareOptions
from flamingo.train.options.memory import MemoryOptions
from flamingo.train.options.optimisation import OptimisationOptions
from flamingo.train.options.saving import SavingOptions
from flamingo.train.options.telemetry import TelemetryOptions


@dataclass(frozen=True, kw_only=True)
class TrainSections(
    DataOptions,
    FlamingoOptions,
    OptimisationOptions,
    HardwareOptions,
    SavingOptions,
    MemoryOptions,
    SelectionOptions,
    ReadingOptions,
    ValidationOptions,
    AdapterOptions,
    TelemetryOptions,
):
    """The sections in the order that `--help` shows them; each has checked itself alone."""
