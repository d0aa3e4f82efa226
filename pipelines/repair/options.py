"""What `repair` and `index` can be told. Only the standard library is imported here."""

from dataclasses import dataclass, field
from typing import ClassVar

from mmdata.option_checks import check_least
from pipelines.conversion.options import ShardRunOptions
from pipelines.engine.options import EngineOptions


@dataclass(frozen=True, kw_only=True)
class Repair(ShardRunOptions):
    """Save what can be saved of damaged shards, into another folder, with a line for each loss."""

    section: ClassVar[str] = "Input"

    shards: tuple[str, ...] = field(metadata={"positional": True})
    """Shards (.tar), ours or others', in order: folders, globs or {000..041} ranges."""
    skip_bad_inputs: bool = False
    """Leave out files that are no tars, and name them, instead of refusing to start."""
    keep_text_only: bool = False
    """Keep documents that lose all their images."""
    max_pixels: int = 100_000_000
    """Refuse images of more pixels, by their header."""

    def _check(self) -> None:
        check_least(self, 1, "max_pixels")


@dataclass(frozen=True, kw_only=True)
class Index(EngineOptions):
    """Write sidecars, samples tables, manifest and sizes.json beside shards made by others."""

    section: ClassVar[str] = "Index"

    shards: tuple[str, ...] = field(metadata={"positional": True})
    """Shards (.tar): folders, globs or {000..041} ranges; every tar of a folder is indexed."""
    energon: bool = False
    """Also write what Megatron-Energon reads by; beside shards of ours, only this is written."""
    overwrite: bool = False
    """Index shards again whose index is there and fits."""
