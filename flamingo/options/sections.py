"""The sections of a run's options that every family of models has."""

from dataclasses import dataclass

from flamingo.options.data import DataOptions, ReadingOptions, SelectionOptions, ValidationOptions
from flamingo.options.hardware import HardwareOptions
from flamingo.options.memory import MemoryOptions
from flamingo.options.optimisation import OptimisationOptions
from flamingo.options.saving import SavingOptions
from flamingo.options.telemetry import TelemetryOptions


@dataclass(frozen=True, kw_only=True)
class TrainSections(
    DataOptions,
    OptimisationOptions,
    HardwareOptions,
    SavingOptions,
    MemoryOptions,
    SelectionOptions,
    ReadingOptions,
    ValidationOptions,
    TelemetryOptions,
):
    """The sections in the order that `--help` shows them; each has checked itself alone."""
