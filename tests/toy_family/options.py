"""What a run of the toy family can be told."""

from dataclasses import dataclass
from typing import ClassVar

from flamingo.options.run import RunOptions
from mmdata.option_checks import Options, check_least

NAME = "toy"


@dataclass(frozen=True, kw_only=True)
class ToyOptions(Options):
    """The model: its tokenizer and its size."""

    section: ClassVar[str] = "Model"

    tokenizer_path: str
    """Tokenizer: a folder, or a name on the hub."""
    toy_width: int = 16
    """Width of the model."""

    def _check(self) -> None:
        check_least(self, 1, "toy_width")


@dataclass(frozen=True, kw_only=True)
class TrainToy(RunOptions, ToyOptions):
    """Train a toy from shards."""

    family: ClassVar[str] = NAME
