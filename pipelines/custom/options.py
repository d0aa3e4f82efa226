"""What `mmdata convert-custom` can be told."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from mmdata.errors import UserError
from mmdata.images.policy import ImagePolicy
from mmdata.sources.conversations.roles import parse_template
from pipelines.conversion.options import Conversion, check_field

CustomFormat = Literal["auto", "llava", "sharegpt", "messages", "mmc4", "obelics", "chatgpt"]


OnTagMismatch = Literal["error", "first-turn", "drop"]


@dataclass(frozen=True, kw_only=True)
class ConvertCustom(Conversion):
    """Convert conversations and interleaved pages of one's own, with their images, to shards."""

    section: ClassVar[str] = "Input"

    inputs: tuple[str, ...] = field(metadata={"positional": True})
    """JSON arrays, JSON lines (also .gz, .zst, .zip) or parquet; folders, globs, {0..9} ranges."""
    image_root: str | None = None
    """What image names are relative to: a folder, tars or parquet. None: records hold the bytes."""
    format: CustomFormat = "auto"
    """Format of the records; auto: each is told by its fields."""
    roles: str = "keep"
    """What becomes of the speakers: keep lists them beside the turns; drop; or a template puts them
    into the text: 'Question: {human} Answer: {gpt}'."""
    on_tag_mismatch: OnTagMismatch = "first-turn"
    """Placeholders and images that do not fit: keep what can be kept, drop the record, or stop."""
    placeholder: tuple[str, ...] = ()
    """Further placeholders of images, besides <image>, <img>, <|image|>, <image_1> and the like."""
    window: str = "auto"
    """Gray images of over 8 bits: auto (their percentiles), full (0 to 65,535) or LEVEL,WIDTH."""
    allow_symlinks_to: tuple[str, ...] = ()
    """Folders outside the image root that links in it may lead to (hub caches)."""
    pseudonymise: bool = False
    """Write keyed hashes for ids, file names and paths; no other fields, no metadata in images."""
    keep_field: tuple[str, ...] = ()
    """Fields of the records that --pseudonymise keeps (meta.language), but for names in them."""
    pseudonym_field: tuple[str, ...] = ()
    """Fields that tell whose a record is: --pseudonymise hashes them, in the text too."""

    def _check(self) -> None:
        check_roles(self.roles)
        check_window(self.window)
        if "" in self.placeholder:
            raise UserError("--placeholder '': expected a text")
        for flag, fields in (
            ("--keep-field", self.keep_field),
            ("--pseudonym-field", self.pseudonym_field),
        ):
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
        return replace(super().image_policy(), window=self.window, strip=self.pseudonymise)


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
