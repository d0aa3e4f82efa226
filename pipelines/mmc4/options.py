"""What `mmdata convert-mmc4` can be told."""

from dataclasses import dataclass, field
from typing import ClassVar

from pipelines.conversion.options import Conversion, check_image_path


@dataclass(frozen=True, kw_only=True)
class ConvertMmc4(Conversion):
    """Convert MMC4 documents and a folder of downloaded images to shards."""

    section: ClassVar[str] = "Input"

    docs: tuple[str, ...] = field(metadata={"positional": True})
    """MMC4 files (.jsonl, .jsonl.zip, .jsonl.gz, .jsonl.zst), folders, globs or {0..9} ranges."""
    images: str
    """Images: a folder (`<shard number>/`, `<stem>/`, flat), tars, parquet, img2dataset output."""
    image_path: str | None = None
    """Where an image lies, as a pattern of {root}, {shard}, {stem} and {image_name}."""
    allow_symlinks_to: tuple[str, ...] = ()
    """Folders outside the image folder that links in it may lead to (hub caches)."""

    def _check(self) -> None:
        if self.image_path is not None:
            check_image_path(self.image_path)
