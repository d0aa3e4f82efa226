"""What convert-laion can be told; the standard library only."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from mmdata.errors import UserError
from mmdata.option_checks import Options, check_least
from pipelines.conversion.options import Conversion
from pipelines.downloads.options import DownloadOptions

FetcherName = Literal["native", "img2dataset", "none"]
Layout = Literal["interleaved", "pairs"]
Quoting = Literal["auto", "double", "none"]
_DOCS_PER_SHARD: dict[Layout, int] = {"interleaved": 1000, "pairs": 10_000}


@dataclass(frozen=True, kw_only=True)
class RowOptions(Options):
    """How the rows of a list are read, and which of them pass."""

    section: ClassVar[str] = "Rows"

    url_col: str | None = None
    """Column of URLs. Default: URL, url, image_url, …, the first that is there."""
    caption_col: str | None = None
    """Column of captions. Default: TEXT, text, caption, …, the first that is there."""
    similarity_col: str | None = None
    """Column of similarities of picture and text. Default: similarity."""
    quoting: Quoting = "auto"
    """Whether fields of .csv and .tsv may stand in double quotes, or quotes are text. auto: those
    of .csv may."""
    min_caption_similarity: float | None = None
    """Pass only rows whose similarity is at least this; before anything is fetched."""
    max_punsafe: float | None = None
    """Pass only rows whose `punsafe` is at most this."""
    max_pwatermark: float | None = None
    """Pass only rows whose `pwatermark` is at most this."""
    nsfw: tuple[str, ...] = ()
    """Pass only rows whose `NSFW` is one of these (UNLIKELY UNSURE NSFW)."""
    min_size: int = 0
    """Pass only rows whose listed shorter side has so many px, then images likewise."""

    def _check(self) -> None:
        check_least(self, 0, "min_size")


@dataclass(frozen=True, kw_only=True)
class ConvertLaion(RowOptions, DownloadOptions, Conversion):
    """Convert lists of image-text pairs (LAION parquet and the like) to shards, fetching images."""

    section: ClassVar[str] = "Input"

    inputs: tuple[str, ...] = field(metadata={"positional": True})
    """Files, folders, globs or ranges: .parquet, .csv, .tsv, .jsonl, or img2dataset's output."""
    layout: Layout = "interleaved"
    """interleaved: documents of one text and one image; pairs: img2dataset's .jpg, .txt, .json."""
    fetcher: FetcherName = "native"
    """Who fetches: native; img2dataset, without our guarantees; none: inputs hold their images."""
    retry_failed: bool = False
    """Fetch again what failed; shards with such rows are written anew with the images they hold."""
    docs_per_shard: int = 0
    """Most records in one shard. Default: 1,000, of layout pairs 10,000."""

    def __post_init__(self) -> None:
        if self.docs_per_shard == 0:
            object.__setattr__(self, "docs_per_shard", _DOCS_PER_SHARD.get(self.layout, 1000))
        super().__post_init__()

    def _check(self) -> None:
        if self.refresh_missing:
            raise UserError("--refresh-missing: is of image folders; use --retry-failed")
        if self.layout == "pairs" and self.keep_text_only:
            raise UserError("--keep-text-only: a pair without an image is none; leave it out")
        if self.max_images is not None or self.min_images > 1:
            raise UserError("--max-images and --min-images: a pair has one image; leave them out")
        if self.retry_failed and self.dedupe != "none":
            raise UserError(
                "--retry-failed and --dedupe: what comes late may be the first of equals; convert "
                "without --dedupe, or again from the start"
            )
        if self.retry_failed and (self.overwrite or self.fetcher == "none"):
            raise UserError("--retry-failed: needs shards that are there and a fetcher")
