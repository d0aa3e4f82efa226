"""What `mmdata align` can be told."""

from dataclasses import dataclass, field
from typing import ClassVar

from mmdata.errors import UserError
from pipelines.clip.options import ClipOptions
from pipelines.conversion.options import ShardRunOptions


@dataclass(frozen=True, kw_only=True)
class Align(ClipOptions, ShardRunOptions):
    """Compute the similarities of shards anew with CLIP, and align them by these."""

    section: ClassVar[str] = "Input"

    shards: tuple[str, ...] = field(metadata={"positional": True})
    """Shards (.tar) of one conversion from the first on: its folder, globs or {000..041} ranges."""
    keep_text_only: bool = False
    """Keep documents that lose all their images to --min-similarity."""

    def _check(self) -> None:
        if self.clip_model is None:
            raise UserError("--clip-model: expected a CLIP, for example ViT-L-14 (and its weights)")
