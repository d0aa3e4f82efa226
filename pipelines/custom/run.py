"""convert-custom: conversations and interleaved pages of one's own to interleaved shards."""

from mmdata.sources.containers import SUFFIXES, find_segments
from mmdata.sources.conversations.formats import Reading
from mmdata.sources.fields import WantedField
from mmdata.sources.image_store import ImageSource
from mmdata.sources.pseudonyms import Pseudonyms
from mmdata.sources.split import URL_HOST
from pipelines.clip.backend import describe_clip
from pipelines.conversion.fields import wanted_group
from pipelines.conversion.image_inputs import usable_images
from pipelines.conversion.policy import assembly_policy, byte_options
from pipelines.conversion.result import ConversionResult
from pipelines.conversion.run import run_conversion
from pipelines.conversion.secret_key import needed_key
from pipelines.custom.job import CustomJob
from pipelines.custom.options import ConvertCustom
from schemas.manifest import ExcludedInput

#: Counts up when other words of a text are taken for names: shards of both would not go together.
_PSEUDONYM_RULES = 2


def convert_custom(options: ConvertCustom, *, quiet: bool = False) -> ConversionResult:
    """Convert records of conversations to shards; the same call again goes on where it stopped.

    Args:
        options: see `ConvertCustom`.
        quiet: no progress bar.

    Raises:
        UserError: it cannot start as asked; nothing was written.
        BadInputError: inputs are missing or damaged; all of them are named.
    """
    images: ImageSource | None = None
    excluded: list[ExcludedInput] = []
    if options.image_root is not None:
        images, excluded = usable_images(
            options, options.allow_symlinks_to, options.image_root, "--image-root"
        )
    clip = describe_clip(options, options.ray_address) if options.clip_model else None
    names = _pseudonyms(options)
    job = CustomJob(
        kind="custom",
        max_record_bytes=options.max_record_bytes,
        key_prefix=options.key_prefix,
        images=images,
        policy=(policy := assembly_policy(options)),
        reading=Reading(
            format=None if options.format == "auto" else options.format,
            roles=options.roles,
            on_tag_mismatch=options.on_tag_mismatch,
            placeholders=options.placeholder,
            matrix_wanted=clip is None,
        ),
        names=names,
        clip=clip,
        wanted=(*wanted_group(policy.grouping), *_wanted(options)),
    )
    return run_conversion(
        options,
        job,
        options.inputs,
        suffixes=SUFFIXES,
        list_segments=find_segments,
        byte_options=_byte_options(options, names),
        quiet=quiet,
        excluded=excluded,
        names=names,
    )


def _byte_options(options: ConvertCustom, names: Pseudonyms | None) -> dict[str, object]:
    found: dict[str, object] = byte_options(options)
    for name in ("format", "roles", "on_tag_mismatch", "window"):
        found[name] = getattr(options, name)
    found["placeholder"] = list(options.placeholder)
    if names is not None:
        found["pseudonymise"] = True
        found["keep_field"] = list(options.keep_field)
        found["pseudonym_field"] = list(options.pseudonym_field)
        found["pseudonym_rules"] = _PSEUDONYM_RULES
        # Tells another key from this one, and nothing of either.
        found["pseudonym_check"] = names.of("\0mmdata pseudonym check")
    return found


def _pseudonyms(options: ConvertCustom) -> Pseudonyms | None:
    """Makes pseudonyms with the user's key, where they are asked for.

    Raises:
        UserError: there is no key, or it is too short to be one.
    """
    if not options.pseudonymise:
        return None
    key = needed_key(options)
    by = options.split_by or "id"
    split = () if by in ("id", URL_HOST) else (by,)
    named = options.pseudonym_field
    return Pseudonyms(key, (*named, *split), options.keep_field, named)


def _wanted(options: ConvertCustom) -> tuple[WantedField, ...]:
    """The fields that the options of pseudonyms name."""
    kept = (WantedField("--keep-field", path, valued=False) for path in options.keep_field)
    return (*kept, *(WantedField("--pseudonym-field", path) for path in options.pseudonym_field))
