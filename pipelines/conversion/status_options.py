"""What `mmdata status` can be told."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Tell how far a conversion is, while it runs and after a crash, from any machine."""

    output: str = field(metadata={"positional": True})
    """Folder, or s3:// or gs:// URL, that the shards are written to."""
    clean: bool = False
    """Remove what killed runs left under temporary names; refused while a run goes on."""
