"""What `mmdata status` can be told."""

from dataclasses import dataclass, field
from typing import ClassVar

from mmdata.option_checks import Options


@dataclass(frozen=True, kw_only=True)
class Status(Options):
    """Tell how far a conversion is, while it runs and after a crash, from any machine."""

    section: ClassVar[str] = "Conversion"

    output: str = field(metadata={"positional": True})
    """Folder, or s3:// or gs:// URL, that the shards are written to."""
    clean: bool = False
    """Remove what killed runs left under temporary names; refused while a run goes on."""
