"""What fetch-images can be told; the standard library only."""

from dataclasses import dataclass, field
from typing import ClassVar

from mmdata.fetch.policy import MIB
from mmdata.option_checks import check_least
from pipelines.downloads.options import DownloadOptions
from pipelines.engine.options import WorkerOptions


@dataclass(frozen=True, kw_only=True)
class FetchImages(DownloadOptions, WorkerOptions):
    """Download the images of MMC4 documents into the folder that convert-mmc4 reads."""

    section: ClassVar[str] = "Input and output"

    docs: tuple[str, ...] = field(metadata={"positional": True})
    """MMC4 files (.jsonl, .jsonl.zip, .jsonl.gz, .jsonl.zst), folders, globs or {0..9} ranges."""
    output: str
    """Folder for the images: `<shard number>/NAME`, or `<file stem>/NAME`."""
    retry_failed: bool = False
    """Also fetch again what failed in files that were done before."""
    max_record_bytes: int = 64 * MIB
    """Pass over records of more bytes."""

    def _check(self) -> None:
        check_least(self, 1, "max_record_bytes")
