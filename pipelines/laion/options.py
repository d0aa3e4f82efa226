"""What convert-laion and fetch-images can be told; the standard library only."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from mmdata.errors import UserError
from mmdata.fetch.policy import MIB, USER_AGENT, FetchPolicy
from mmdata.option_checks import at_least, check_choices, check_paths
from pipelines.conversion.options import Conversion

FetcherName = Literal["native", "img2dataset", "none"]
Layout = Literal["interleaved", "pairs"]
Quoting = Literal["auto", "double", "none"]
_DOCS_PER_SHARD: dict[Layout, int] = {"interleaved": 1000, "pairs": 10_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertLaion(Conversion):
    """Convert lists of image-text pairs (LAION parquet and the like) to shards, fetching images."""

    inputs: tuple[str, ...] = field(metadata={"positional": True})
    """Files, folders, globs or ranges: .parquet, .csv, .tsv, .jsonl, or img2dataset's output."""
    layout: Layout = "interleaved"
    """interleaved: documents of one text and one image; pairs: img2dataset's .jpg, .txt, .json."""
    docs_per_shard: int = 0
    """Most records in one shard. Default: 1,000, of layout pairs 10,000."""
    url_col: str | None = None
    """Column of URLs. Default: URL, url, image_url, …, the first that is there."""
    caption_col: str | None = None
    """Column of captions. Default: TEXT, text, caption, …, the first that is there."""
    similarity_col: str | None = None
    """Column of similarities of picture and text. Default: similarity."""
    quoting: Quoting = "auto"
    """Of .csv and .tsv: fields may stand in double quotes, or quotes are text. auto: CSV may."""
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
    fetcher: FetcherName = "native"
    """img2dataset: runs that, without our guarantees; none: only inputs that hold their images."""
    timeout: float = 20.0
    """Seconds that an attempt at a URL may take."""
    retries: int = 2
    """Further attempts where that may help: lost connections, 408, 425, 429, 5xx."""
    per_host: int = 4
    """Requests to one host at a time, of each worker."""
    concurrency: int = 64
    """Requests at a time, of each worker."""
    max_bytes: int = 32 * MIB
    """Of a download."""
    allow_private_hosts: bool = False
    """Also ask loopback, private and link-local addresses (intranets, tests)."""
    ignore_noai: bool = False
    """Also take images sent with X-Robots-Tag noai or noimageai."""
    user_agent: str = USER_AGENT
    """Who asks; sites like to find a way to reach you in it."""
    retry_failed: bool = False
    """Fetch again what failed; shards with such rows are written anew with the images they hold."""

    def __post_init__(self) -> None:
        if self.docs_per_shard == 0:
            object.__setattr__(self, "docs_per_shard", _DOCS_PER_SHARD.get(self.layout, 1000))
        Conversion.__post_init__(self)
        check_paths(self.inputs, "inputs")
        check_paths(self.nsfw, "--nsfw")
        check_downloads(self)
        at_least(self.min_size, 0, "--min-size")
        self._check_combinations()

    def _check_combinations(self) -> None:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchImages:
    """Download the images of MMC4 documents into the folder that convert-mmc4 reads."""

    docs: tuple[str, ...] = field(metadata={"positional": True})
    """MMC4 files (.jsonl, .jsonl.zip, .jsonl.gz, .jsonl.zst), folders, globs or {0..9} ranges."""
    output: str
    """Folder for the images: `<shard number>/NAME`, or `<file stem>/NAME`."""
    timeout: float = 20.0
    """Seconds that an attempt at a URL may take."""
    retries: int = 2
    """Further attempts where that may help: lost connections, 408, 425, 429, 5xx."""
    per_host: int = 4
    """Requests to one host at a time, of each worker."""
    concurrency: int = 64
    """Requests at a time, of each worker."""
    max_bytes: int = 32 * MIB
    """Of a download."""
    allow_private_hosts: bool = False
    """Also ask loopback, private and link-local addresses (intranets, tests)."""
    ignore_noai: bool = False
    """Also take images sent with X-Robots-Tag noai or noimageai."""
    user_agent: str = USER_AGENT
    """Who asks; sites like to find a way to reach you in it."""
    retry_failed: bool = False
    """Also fetch again what failed in files that were done before."""
    max_record_bytes: int = 64 * MIB
    """Pass over longer records."""
    workers: int | None = None
    """Ray worker processes; 0: in this process. Default: all cores, 0 for one file."""
    ray_address: str | None = None
    """Address of a running Ray cluster. Default: a Ray of its own on this machine."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_paths(self.docs, "docs")
        check_downloads(self)
        at_least(self.max_record_bytes, 1, "--max-record-bytes")
        if self.workers is not None:
            at_least(self.workers, 0, "--workers")


class DownloadOptions(Protocol):
    """Options of the native fetcher."""

    @property
    def timeout(self) -> float: ...
    @property
    def retries(self) -> int: ...
    @property
    def per_host(self) -> int: ...
    @property
    def concurrency(self) -> int: ...
    @property
    def max_bytes(self) -> int: ...
    @property
    def allow_private_hosts(self) -> bool: ...
    @property
    def ignore_noai(self) -> bool: ...
    @property
    def user_agent(self) -> str: ...


def check_downloads(options: DownloadOptions) -> None:
    """Refuse limits that make no sense."""
    if not 0 < options.timeout <= 86_400:
        raise UserError(f"--timeout {options.timeout:g}: expected seconds, more than 0")
    at_least(options.retries, 0, "--retries")
    for name in ("per_host", "concurrency", "max_bytes"):
        at_least(getattr(options, name), 1, "--" + name.replace("_", "-"))
    agent = options.user_agent
    if not agent.strip() or not agent.isascii() or not agent.isprintable():
        raise UserError(f"--user-agent {agent!r}: expected printable ASCII")


def fetch_policy(options: DownloadOptions) -> FetchPolicy:
    """The limits of downloads, from the options."""
    return FetchPolicy(
        timeout=options.timeout,
        retries=options.retries,
        per_host=options.per_host,
        concurrency=options.concurrency,
        max_bytes=options.max_bytes,
        allow_private_hosts=options.allow_private_hosts,
        ignore_noai=options.ignore_noai,
        user_agent=options.user_agent,
    )
