"""Options that every converter has, and the checks that commands share.

Only the standard library is imported here (and `mmdata.images.policy`, which keeps to the same
rule): the options of each command are made from it, and the command line shows its help from those.
"""

import re
from dataclasses import dataclass
from typing import Literal, Protocol

from mmdata.errors import UserError
from mmdata.images.policy import ImageFormat, ImagePolicy, ResizeMode
from mmdata.option_checks import at_least, check_choices
from pipelines.clip.options import ClipDevice, check_clip
from pipelines.engine.options import check_stall_timeout

OnMissing = Literal["drop-image", "drop-document", "error"]
Dedupe = Literal["none", "exact"]
MIB = 2**20
_SPLIT_NAME = re.compile(r"[0-9a-z_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What every converter can be told."""

    output: str
    """Folder, or s3:// or gs:// URL, that the shards are written to."""
    docs_per_shard: int = 1000
    """Most records in one shard."""
    num_shards: int | None = None
    """Write at least this many shards (lowers --docs-per-shard as needed)."""
    workers: int | None = None
    """Ray worker processes; 0: convert in this process. Default: all cores, 0 for small jobs."""
    ray_address: str | None = None
    """Address of a running Ray cluster. Default: a Ray of its own on this machine."""
    stall_timeout: float = 600.0
    """Seconds without progress until a unit at Ray is cancelled and run once more; 0: never."""
    verify: Literal["header", "decode", "full"] = "decode"
    """How far each image is decoded to find damage."""
    on_missing: OnMissing = "drop-image"
    """What a missing or unusable image does to its document."""
    keep_text_only: bool = False
    """Keep documents that are left without any image."""
    drop_duplicate_images: bool = False
    """Within a document, keep only the first of images with equal bytes."""
    dedupe: Dedupe = "none"
    """exact: drop images that repeat in their document, and documents that repeat in the run."""
    drop_url_duplicates: bool = False
    """Drop documents that MMC4 marks as `could_have_url_duplicate`."""
    min_images: int = 0
    """Drop documents that are left with fewer images."""
    max_images: int | None = None
    """Keep at most this many images of a document, those with the greatest similarity."""
    min_similarity: float | None = None
    """Drop images whose similarity to their sentence is below this (0 to 1)."""
    clip_model: str | None = None
    """CLIP that computes similarities: of open_clip (ViT-L-14), local-dir:PATH or hf-hub:NAME."""
    clip_pretrained: str | None = None
    """Its weights: a tag of open_clip (openai) or a file; not for local-dir and hf-hub."""
    clip_batch_size: int = 64
    """Images, and sentences, in every batch of the CLIP."""
    clip_device: ClipDevice = "auto"
    """Where the CLIP computes; auto: on a GPU where torch sees one."""
    clip_actors: int | None = None
    """Ray actors that hold the CLIP. Default: one a GPU; on a CPU none, every worker holds it."""
    max_pixels: int = 32_000_000
    """Refuse images of more pixels, by their header."""
    max_aspect: float = 0.0
    """Refuse images whose long side is more than this many times the short one; 0: no limit."""
    min_side: int = 0
    """Refuse images whose shorter side has fewer pixels."""
    min_bytes: int = 0
    """Refuse images whose file is smaller, in bytes."""
    jpeg_warnings: Literal["keep", "drop"] = "keep"
    """JPEGs that are complete but have stray bytes before a marker."""
    max_side: int | None = None
    """Make images smaller whose longest (or shortest) side has more pixels; others stay."""
    resize_mode: ResizeMode = "longest"
    """Which side --max-side is about."""
    image_format: ImageFormat = "keep"
    """keep: lossless stays PNG, lossy JPEG, where an image is encoded; else all of one format."""
    quality: int | None = None
    """Of JPEGs and WebPs that are encoded (1 to 100). Default: 95 for JPEG, 90 for WebP."""
    max_record_bytes: int = 64 * MIB
    """Refuse longer records."""
    max_document_bytes: int = 256 * MIB
    """Refuse documents whose images come to more bytes together."""
    limit: int | None = None
    """Stop after the shards that hold the first N records; run again without it to go on."""
    key_prefix: str = ""
    """Put before every sample key ([0-9a-z_-])."""
    split: str | None = None
    """Splits and their shares, as train=0.9,val=0.1; each becomes a folder of its own."""
    split_by: str | None = None
    """What stays together: id, url-host or a field of the source (patient, meta.subject). Default:
    id. Without --split it is recorded, for mmdata validate --against."""
    split_seed: int = 0
    """Another seed splits otherwise."""
    pseudonym_key: str | None = None
    """File with a secret key (16 bytes or more) for ids. Default: $MMDATA_PSEUDONYM_KEY."""
    skip_bad_inputs: bool = False
    """Leave out inputs that are missing or damaged, and name them, instead of refusing to start."""
    overwrite: bool = False
    """Replace what another conversion wrote to the output folder."""
    refresh_missing: bool = False
    """Convert again the shards that lacked images, now that more may be there."""
    verify_committed: bool = False
    """Hash the shards that are already there, instead of trusting their size."""
    ignore_free_space: bool = False
    """Start even if the estimate says that the disk cannot hold the output."""
    dry_run: bool = False
    """Make the plan, print it with estimates of bytes and time, and stop; nothing is written."""
    log_json: str | None = None
    """Append progress, shards, drops and failures to this file, as JSON lines."""
    energon: bool = False
    """Also write what Megatron-Energon reads by: `.tar.idx` beside each shard, and `.nv-meta`."""

    def __post_init__(self) -> None:
        check_choices(self)
        at_least(self.docs_per_shard, 1, "--docs-per-shard")
        for name in ("num_shards", "limit", "max_side", "quality", "max_images"):
            value = getattr(self, name)
            if value is not None:
                at_least(value, 1, "--" + name.replace("_", "-"))
        if self.workers is not None:
            at_least(self.workers, 0, "--workers")
        check_stall_timeout(self.stall_timeout)
        for name in ("max_pixels", "max_record_bytes", "max_document_bytes"):
            at_least(getattr(self, name), 1, "--" + name.replace("_", "-"))
        for name in ("min_side", "min_bytes", "min_images"):
            at_least(getattr(self, name), 0, "--" + name.replace("_", "-"))
        if self.max_aspect != 0 and not self.max_aspect >= 1.0:
            raise UserError(
                f"--max-aspect {self.max_aspect:g}: expected 0 (no limit) or at least 1"
            )
        check_min_similarity(self.min_similarity)
        check_clip(self, self.workers)
        if self.quality is not None and self.quality > 100:
            raise UserError(f"--quality {self.quality}: expected 1 to 100")
        self._check_images_of_a_document()
        check_key_prefix(self.key_prefix)
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

    def _check_images_of_a_document(self) -> None:
        if self.keep_text_only and self.min_images:
            raise UserError("--keep-text-only and --min-images: choose one, they contradict")
        if self.max_images is not None and self.min_images > self.max_images:
            raise UserError(
                f"--min-images {self.min_images}: expected at most --max-images {self.max_images}"
            )

    def image_policy(self) -> ImagePolicy:
        """What is asked of each image."""
        return ImagePolicy(
            verify=self.verify,
            max_pixels=self.max_pixels,
            min_side=self.min_side,
            min_bytes=self.min_bytes,
            max_aspect=self.max_aspect,
            jpeg_warnings=self.jpeg_warnings,
            max_side=self.max_side,
            resize_mode=self.resize_mode,
            image_format=self.image_format,
            quality=self.quality,
        )


class RunOptions(Protocol):
    """What a run is told, whatever it works on."""

    @property
    def workers(self) -> int | None: ...
    @property
    def ray_address(self) -> str | None: ...
    @property
    def stall_timeout(self) -> float: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def overwrite(self) -> bool: ...
    @property
    def refresh_missing(self) -> bool: ...
    @property
    def verify_committed(self) -> bool: ...
    @property
    def ignore_free_space(self) -> bool: ...
    @property
    def dry_run(self) -> bool: ...
    @property
    def log_json(self) -> str | None: ...
    @property
    def clip_actors(self) -> int | None: ...
    @property
    def energon(self) -> bool: ...


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


def check_min_similarity(value: float | None) -> None:
    """Refuse a threshold that is no cosine."""
    if value is not None and not -1.0 <= value <= 1.0:
        meant = f": did you mean {value / 100:g}?"
        raise UserError(
            f"--min-similarity {value:g}: similarities are cosines, -1 to 1"
            + (meant if 1 < value <= 100 else "")
        )


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
