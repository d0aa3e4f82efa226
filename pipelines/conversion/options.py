"""Options that every converter has, and the checks that commands share.

Only the standard library is imported here (and `mmdata.images.policy`, which keeps to the same
rule): the options of each command are made from it, and the command line shows its help from those.
"""

import re
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from mmdata.errors import UserError
from mmdata.images.policy import ImageFormat, ImagePolicy, JpegWarnings, ResizeMode, Verify
from mmdata.option_checks import Options, check_least
from pipelines.clip.options import ClipOptions
from pipelines.engine.options import EngineOptions

OnMissing = Literal["drop-image", "drop-document", "error"]
Dedupe = Literal["none", "exact"]
MIB = 2**20
_SPLIT_NAME = re.compile(r"[0-9a-z_-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class ShardRunOptions(EngineOptions):
    """What a run that writes shards is told, whatever it works on."""

    section: ClassVar[str] = "Output"

    output: str
    """Folder, or s3:// or gs:// URL, that the shards are written to."""
    dry_run: bool = False
    """Make the plan, print it with estimates of bytes and time, and stop; nothing is written."""
    overwrite: bool = False
    """Replace what another run wrote to the output folder."""
    energon: bool = False
    """Also write what Megatron-Energon reads by: `.tar.idx` beside each shard, and `.nv-meta`."""
    log_json: str | None = None
    """Append progress, shards, drops and failures to this file, as JSON lines."""
    verify_committed: bool = False
    """Hash the shards that are already there, instead of trusting their size."""
    ignore_free_space: bool = False
    """Start even if the estimate says that the disk cannot hold the output."""

    @property
    def limit(self) -> int | None:
        """None: everything is worked on."""
        return None

    @property
    def skip_bad_inputs(self) -> bool:
        """False: an input that is missing or damaged ends the run."""
        return False

    @property
    def refresh_missing(self) -> bool:
        """False: no image is looked for again."""
        return False

    @property
    def clip_actors(self) -> int | None:
        """None: nothing is scored."""
        return None


@dataclass(frozen=True, kw_only=True)
class DocumentOptions(Options):
    """Which documents pass, and what a document keeps."""

    section: ClassVar[str] = "Documents"

    on_missing: OnMissing = "drop-image"
    """What a missing or unusable image does to its document."""
    keep_text_only: bool = False
    """Keep documents that are left without any image."""
    min_images: int = 0
    """Drop documents that are left with fewer images."""
    max_images: int | None = None
    """Keep at most this many images of a document, those with the greatest similarity."""
    dedupe: Dedupe = "none"
    """exact: drop images that repeat in their document, and documents that repeat in the run."""
    drop_duplicate_images: bool = False
    """Within a document, keep only the first of images with equal bytes."""
    drop_url_duplicates: bool = False
    """Drop documents that MMC4 marks as `could_have_url_duplicate`."""
    max_record_bytes: int = 64 * MIB
    """Refuse records of more bytes."""
    max_document_bytes: int = 256 * MIB
    """Refuse documents whose images come to more bytes together."""

    def _check(self) -> None:
        check_least(self, 1, "max_images", "max_record_bytes", "max_document_bytes")
        check_least(self, 0, "min_images")
        if self.keep_text_only and self.min_images:
            raise UserError("--keep-text-only and --min-images: choose one, they contradict")
        if self.max_images is not None and self.min_images > self.max_images:
            raise UserError(
                f"--min-images {self.min_images}: expected at most --max-images {self.max_images}"
            )


@dataclass(frozen=True, kw_only=True)
class ImageOptions(Options):
    """Which images pass, and what is made of them."""

    section: ClassVar[str] = "Images"

    verify: Verify = "decode"
    """How far each image is decoded to find damage."""
    max_side: int | None = None
    """Make images smaller whose longest (or shortest) side has more pixels; others stay."""
    resize_mode: ResizeMode = "longest"
    """Which side --max-side is about."""
    image_format: ImageFormat = "keep"
    """keep: lossless stays PNG, lossy JPEG, where an image is encoded; else all of one format."""
    quality: int | None = None
    """Quality of JPEGs and WebPs that are encoded (1 to 100). Default: 95 for JPEG, 90 for WebP."""
    min_side: int = 0
    """Refuse images whose shorter side has fewer pixels."""
    min_bytes: int = 0
    """Refuse images whose file is smaller, in bytes."""
    max_pixels: int = 32_000_000
    """Refuse images of more pixels, by their header."""
    max_aspect: float = 0.0
    """Refuse images whose long side is more than this many times the short one; 0: no limit."""
    jpeg_warnings: JpegWarnings = "keep"
    """What becomes of JPEGs that are complete but have stray bytes before a marker."""

    def _check(self) -> None:
        check_least(self, 1, "max_side", "quality", "max_pixels")
        check_least(self, 0, "min_side", "min_bytes")
        if self.max_aspect != 0 and not self.max_aspect >= 1.0:
            raise UserError(
                f"--max-aspect {self.max_aspect:g}: expected 0 (no limit) or at least 1"
            )
        if self.quality is not None and self.quality > 100:
            raise UserError(f"--quality {self.quality}: expected 1 to 100")

    def image_policy(self) -> ImagePolicy:
        """What is asked of each image."""
        given = {column.name: getattr(self, column.name) for column in fields(ImageOptions)}
        return ImagePolicy(**given)


@dataclass(frozen=True, kw_only=True)
class SplitOptions(Options):
    """Which records stay together, and the splits that they go to."""

    section: ClassVar[str] = "Groups and splits"

    split: str | None = None
    """Splits and their shares, as train=0.9,val=0.1; each becomes a folder of its own."""
    split_by: str | None = None
    """What stays together: id, url-host or a field of the source (patient, meta.subject). Default:
    id. Without --split it is recorded, for mmdata validate --against."""
    split_seed: int = 0
    """Seed of the splits; another one splits otherwise."""
    pseudonym_key: str | None = None
    """File with a secret key (16 bytes or more) for ids. Default: $MMDATA_PSEUDONYM_KEY."""

    def _check(self) -> None:
        if self.split is not None:
            parse_split(self.split)
        check_field(self.split_by, "--split-by", "id, url-host or a field")
        if self.pseudonym_key is not None and not self.needs_key:
            raise UserError(f"--pseudonym-key {self.pseudonym_key}: goes with {self.key_users}")

    @property
    def needs_key(self) -> bool:
        """Whether hashes are made that a secret key is for."""
        return self.split is not None or self.split_by is not None

    @property
    def key_users(self) -> str:
        """The options that a secret key is for."""
        return "--split or --split-by"


@dataclass(frozen=True, kw_only=True)
class Conversion(DocumentOptions, ImageOptions, ClipOptions, SplitOptions, ShardRunOptions):
    """What every converter can be told."""

    section: ClassVar[str] = "Shards"

    docs_per_shard: int = 1000
    """Most records in one shard."""
    num_shards: int | None = None
    """Write at least this many shards (lowers --docs-per-shard as needed)."""
    limit: int | None = None
    """Stop after the shards that hold the first N records; run again without it to go on."""
    key_prefix: str = ""
    """Text before every sample key ([0-9a-z_-])."""
    skip_bad_inputs: bool = False
    """Leave out inputs that are missing or damaged, and name them, instead of refusing to start."""
    refresh_missing: bool = False
    """Convert again the shards that lacked images, now that more may be there."""

    def _check(self) -> None:
        check_least(self, 1, "docs_per_shard", "num_shards", "limit")
        check_key_prefix(self.key_prefix)


def parse_split(text: str) -> dict[str, float]:
    """The share of each split of a `train=0.9,val=0.1`, in the order given."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = (piece.strip() for piece in part.partition("="))
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if not _SPLIT_NAME.fullmatch(name) or name in shares or not 0 < value < 1:
            raise UserError(
                f"--split {text}: expected names (0-9, a-z, _ and -) with shares between 0 and 1, "
                f"as train=0.9,val=0.1, got {part!r}"
            )
        shares[name] = value
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise UserError(f"--split {text}: the shares come to {sum(shares.values()):g}, expected 1")
    return shares


def check_field(name: str | None, flag: str, expected: str = "a field") -> None:
    """Refuse what can name no field of a record."""
    if name is not None and not all(name.split(".")):
        raise UserError(f"{flag} {name!r}: expected {expected}")


def check_key_prefix(prefix: str) -> None:
    """Refuse a key prefix that other readers would split or that leaves no room for the key."""
    allowed = set("0123456789abcdefghijklmnopqrstuvwxyz_-")
    if not set(prefix) <= allowed or len(prefix) > 64:
        raise UserError(
            f"--key-prefix {prefix!r}: expected at most 64 characters of 0-9, a-z, _ and - "
            "(readers of WebDataset split names at dots)"
        )


def check_image_path(pattern: str) -> None:
    """Refuse a pattern that names an unknown field or does not name the image."""
    sample = {"root": "", "shard": "0", "stem": "", "image_name": ""}
    try:
        pattern.format_map(sample)
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        raise UserError(
            f"--image-path {pattern!r}: expected {{root}}, {{shard}}, {{stem}} and "
            f"{{image_name}} only: {error}"
        ) from None
    if "{image_name}" not in pattern:
        raise UserError(f"--image-path {pattern!r}: expected {{image_name}} in it")
