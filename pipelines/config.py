"""What each data command can be told: one dataclass a command, which is also its Python API.

Only the standard library is imported here (and modules that keep to the same rule), so that the
command line can show its help without loading numpy, ray or pyarrow.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from mmdata.errors import UserError
from mmdata.images.policy import ImagePolicy
from mmdata.sources.conversations.roles import parse_template
from pipelines.forecast_options import ForecastOptions
from pipelines.options import (
    ClipDevice,
    Conversion,
    at_least,
    check_choices,
    check_clip,
    check_field,
    check_image_path,
    check_min_similarity,
    check_paths,
    check_stall_timeout,
)

Level = Literal["structure", "content", "full"]
Severity = Literal["error", "warning"]
ReportFormat = Literal["table", "json", "jsonl", "github"]
CustomFormat = Literal["auto", "llava", "sharegpt", "messages", "mmc4", "obelics", "chatgpt"]
OnTagMismatch = Literal["error", "first-turn", "drop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertMmc4(Conversion):
    """Convert MMC4 documents and a folder of downloaded images to shards."""

    docs: tuple[str, ...] = field(metadata={"positional": True})
    """MMC4 files (.jsonl, .jsonl.zip, .jsonl.gz, .jsonl.zst), folders, globs or {0..9} ranges."""
    images: str
    """A folder (`<shard number>/`, `<stem>/`, flat), tars, parquet files or img2dataset output."""
    image_path: str | None = None
    """Where an image lies, as a pattern of {root}, {shard}, {stem} and {image_name}."""
    allow_symlinks_to: tuple[str, ...] = ()
    """Folders outside the image folder that links in it may lead to (hub caches)."""

    def __post_init__(self) -> None:
        Conversion.__post_init__(self)  # `super()` does not know a class that slots made anew
        check_paths(self.docs, "docs")
        check_paths(self.allow_symlinks_to, "--allow-symlinks-to")
        if self.image_path is not None:
            check_image_path(self.image_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertCustom(Conversion):
    """Convert conversations and interleaved pages of one's own, with their images, to shards."""

    inputs: tuple[str, ...] = field(metadata={"positional": True})
    """JSON arrays, JSON lines (also .gz, .zst, .zip) or parquet; folders, globs, {0..9} ranges."""
    image_root: str | None = None
    """What image names are relative to: a folder, tars or parquet. None: records hold the bytes."""
    format: CustomFormat = "auto"
    """Of the records; auto: each is told by its fields."""
    roles: str = "keep"
    """keep: list them beside the turns; drop; or a template: 'Question: {human} Answer: {gpt}'."""
    on_tag_mismatch: OnTagMismatch = "first-turn"
    """Placeholders and images that do not fit: keep what can be kept, drop the record, or stop."""
    placeholder: tuple[str, ...] = ()
    """Further placeholders of images, besides <image>, <img>, <|image|>, <image_1> and the like."""
    window: str = "auto"
    """Gray images of over 8 bits: auto (their percentiles), full (0 to 65,535) or LEVEL,WIDTH."""
    allow_symlinks_to: tuple[str, ...] = ()
    """Folders outside the image root that links in it may lead to (hub caches)."""
    pseudonymise: bool = False
    """Keyed hashes for ids, file names and paths; no other fields, no metadata in images."""
    keep_field: tuple[str, ...] = ()
    """With --pseudonymise: fields of the records (meta.language) to keep, but for names in them."""
    pseudonym_field: tuple[str, ...] = ()
    """With --pseudonymise: fields that tell whose a record is: hashes of them, in the text too."""

    def __post_init__(self) -> None:
        Conversion.__post_init__(self)  # `super()` does not know a class that slots made anew
        check_paths(self.inputs, "inputs")
        check_paths(self.allow_symlinks_to, "--allow-symlinks-to")
        check_roles(self.roles)
        check_window(self.window)
        if "" in self.placeholder:
            raise UserError("--placeholder '': expected a text")
        for flag, fields in (
            ("--keep-field", self.keep_field),
            ("--pseudonym-field", self.pseudonym_field),
        ):
            check_paths(fields, flag)
            for name in fields:
                check_field(name, flag)
            if fields and not self.pseudonymise:
                raise UserError("--keep-field and --pseudonym-field go with --pseudonymise")
        for name in set(self.keep_field) & set(self.pseudonym_field):
            raise UserError(f"--keep-field and --pseudonym-field {name}: choose one")

    @property
    def needs_key(self) -> bool:
        """Whether hashes are made that a secret key is for."""
        return self.pseudonymise or self.split is not None or self.split_by is not None

    @property
    def key_users(self) -> str:
        """The options that a secret key is for."""
        return "--pseudonymise, --split or --split-by"

    def image_policy(self) -> ImagePolicy:
        """What is asked of each image."""
        return replace(Conversion.image_policy(self), window=self.window, strip=self.pseudonymise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Align:
    """Compute the similarities of shards anew with CLIP, and align them by these."""

    shards: tuple[str, ...] = field(metadata={"positional": True})
    """Shards (.tar) of one conversion from the first on: its folder, globs or {000..041} ranges."""
    output: str
    """Folder, or s3:// or gs:// URL, that the new shards are written to."""
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
    min_similarity: float | None = None
    """Drop images whose similarity to their sentence is below this (-1 to 1)."""
    keep_text_only: bool = False
    """Keep documents that lose all their images to --min-similarity."""
    workers: int | None = None
    """Ray worker processes; 0: in this process. Default: all cores, 0 for small jobs."""
    ray_address: str | None = None
    """Address of a running Ray cluster. Default: a Ray of its own on this machine."""
    stall_timeout: float = 600.0
    """Seconds without progress until a unit at Ray is cancelled and run once more; 0: never."""
    overwrite: bool = False
    """Replace what another run wrote to the output folder."""
    verify_committed: bool = False
    """Hash the shards that are already there, instead of trusting their size."""
    ignore_free_space: bool = False
    """Start even if the estimate says that the disk cannot hold the output."""
    log_json: str | None = None
    """Append progress, shards, drops and failures to this file, as JSON lines."""
    energon: bool = False
    """Also write what Megatron-Energon reads by: `.tar.idx` beside each shard, and `.nv-meta`."""
    dry_run: bool = False
    """Make the plan, print it, and stop."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_paths(self.shards, "shards")
        if self.clip_model is None:
            raise UserError("--clip-model: expected a CLIP, for example ViT-L-14 (and its weights)")
        check_clip(self, self.workers)
        check_min_similarity(self.min_similarity)
        if self.workers is not None:
            at_least(self.workers, 0, "--workers")
        check_stall_timeout(self.stall_timeout)

    @property
    def limit(self) -> None:
        """None: all shards are aligned."""
        return None

    @property
    def refresh_missing(self) -> bool:
        """False: no image is missing."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Validate(ForecastOptions):
    """Check shards: structure, checksums, schema, alignment, images; and forecast training."""

    shards: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Shards (.tar), folders, globs or {000..041} ranges."""
    json: str | None = None
    """Also write the whole report to this file."""
    level: Level | None = None
    """structure: tar blocks and names; content: and hashes, JSON, alignment; full: and images.
    Default: full; with --forecast or --peer structure."""
    checksum: bool = False
    """At level structure, compare the sha256 of the tars too; the other levels always do."""
    select: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Only these rules count: codes or their beginnings (TAR,IMG002). Several times for more."""
    ignore: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """These rules do not count; the longer of two beginnings decides."""
    fail_on: Severity = "error"
    """The least severity that makes the exit code 1."""
    format: ReportFormat = "table"
    """Of what is printed: table for people, json and jsonl for programs, github for its checks."""
    across: bool = False
    """Also compare the shards: documents and images that repeat, similarities that drift."""
    against: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Shards of another dataset (test, say) that must share nothing with these; implies --across.
    Several times for more."""
    rules: bool = False
    """List the rules, and stop."""
    workers: int | None = None
    """Ray worker processes; 0: in this process. Default: all cores, 0 for small jobs."""
    ray_address: str | None = None
    """Address of a running Ray cluster. Default: a Ray of its own on this machine."""
    stall_timeout: float = 600.0
    """Seconds without progress until a unit at Ray is cancelled and run once more; 0: never."""
    max_findings: int = 100
    """Findings shown for each rule; all are counted."""

    def __post_init__(self) -> None:
        ForecastOptions.__post_init__(self)
        check_choices(self)
        for name in ("shards", "select", "ignore", "against"):
            check_paths(getattr(self, name), name)
        if not self.shards and not self.rules:
            raise UserError("no shards given: name .tar files, folders, globs or {000..041} ranges")
        at_least(self.max_findings, 1, "--max-findings")
        if self.workers is not None:
            at_least(self.workers, 0, "--workers")
        check_stall_timeout(self.stall_timeout)

    @property
    def depth(self) -> Level:
        """The level, with its default."""
        return self.level or ("structure" if self.looks_ahead else "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Write the frozen vision tower's patch tokens of shards to disk, for training without it."""

    shards: tuple[str, ...] = field(metadata={"positional": True})
    """Shards (.tar), folders, globs or {000..041} ranges."""
    output: str
    """Folder for one file a shard; the trainer takes it as --mmc4-features or as a stream's."""
    vision_encoder_path: str = "ViT-L-14"
    """open_clip model, or a folder with its config and weights."""
    vision_encoder_pretrained: str | None = "openai"
    """Weights of the vision encoder: a tag of open_clip, or a file."""
    vision_tokens: Literal["pre_norm", "post_norm"] = "pre_norm"
    """Patch tokens before or after the tower's last norm, as the training will have them."""
    vision_chunk: int = 64
    """Images that go through the tower at once."""
    exact_preprocess: bool = False
    """Pixels as open_clip's own transform gives them, bit for bit; half as fast."""
    actors: int | None = None
    """Ray actors that hold the tower; 0: this process. Default: one a core, or one a GPU."""
    decode_threads: int = 2
    """Threads of each actor that decode images."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the tower computes; on GPUs the actors share these evenly."""
    ray_address: str | None = None
    """Address of a running Ray cluster. Default: a Ray of its own on this machine."""
    stall_timeout: float = 600.0
    """Seconds without a batch of images until an actor is started again, once; 0: never."""
    offline: bool = False
    """No network at all."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_paths(self.shards, "shards")
        check_stall_timeout(self.stall_timeout)
        at_least(self.vision_chunk, 1, "--vision-chunk")
        at_least(self.decode_threads, 1, "--decode-threads")
        if self.actors is not None:
            at_least(self.actors, 0, "--actors")
        if self.actors == 0 and self.ray_address is not None:
            raise UserError("--actors 0 works in this process: leave out --ray-address")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Tell how far a conversion is, while it runs and after a crash, from any machine."""

    output: str = field(metadata={"positional": True})
    """Folder, or s3:// or gs:// URL, that the shards are written to."""
    clean: bool = False
    """Remove what killed runs left under temporary names; refused while a run goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """Print documents of a shard as text: sentences, images, similarities, provenance."""

    shards: tuple[str, ...] = field(metadata={"positional": True})
    """Shards (.tar), folders, globs or ranges; behind them, the key of one sample."""
    key: str | None = None
    """Key of the sample to show."""
    random: int | None = None
    """Show this many samples drawn at random."""
    seed: int = 0
    """Seed of the draw."""
    extract: str | None = None
    """Also write the pictures of what is shown to this folder."""
    json: bool = False
    """Print a JSON object a sample, a line each, instead."""
    preview: bool | None = None
    """Draw the pictures in half blocks. Default: where the output is a terminal (less -R)."""

    def __post_init__(self) -> None:
        if self.random is not None:
            at_least(self.random, 1, "--random")
        if self.preview and self.json:
            raise UserError("--preview and --json: choose one, they contradict")


def check_roles(roles: str) -> None:
    """Refuse what is neither keep, drop nor a template."""
    if roles in ("keep", "drop"):
        return
    try:
        parse_template(roles)
    except ValueError as error:
        raise UserError(
            f"--roles {roles!r}: expected keep, drop or a template such as "
            f"'Question: {{human}} Answer: {{gpt}}': {error}"
        ) from None


def check_window(window: str) -> None:
    """Refuse what is neither auto, full nor two numbers."""
    if window in ("auto", "full"):
        return
    level, _, width = window.partition(",")
    try:
        good = abs(float(level)) < float("inf") and 0 < float(width) < float("inf")
    except ValueError:
        good = False
    if not good:
        raise UserError(
            f"--window {window}: expected auto, full or LEVEL,WIDTH (numbers, WIDTH above 0)"
        )
