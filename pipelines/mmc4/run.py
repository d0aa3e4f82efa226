"""convert-mmc4: MMC4's documents and a folder of downloaded images to interleaved shards."""

from mmdata.errors import UserError
from mmdata.sources.records import SUFFIXES, list_segments
from pipelines.clip.backend import describe_clip
from pipelines.conversion.fields import wanted_group
from pipelines.conversion.image_inputs import usable_images
from pipelines.conversion.policy import assembly_policy, byte_options
from pipelines.conversion.result import ConversionResult
from pipelines.conversion.run import run_conversion
from pipelines.mmc4.job import Mmc4Job
from pipelines.mmc4.options import ConvertMmc4


def convert_mmc4(options: ConvertMmc4, *, quiet: bool = False) -> ConversionResult:
    """Convert MMC4 documents to shards; the same call again goes on where it stopped.

    Args:
        options: see `ConvertMmc4`.
        quiet: no progress bar.

    Raises:
        UserError: it cannot start as asked; nothing was written.
        BadInputError: inputs are missing or damaged; all of them are named.
    """
    images, excluded = usable_images(options, options.allow_symlinks_to, options.images, "--images")
    if images.kind != "folder" and options.image_path is not None:
        raise UserError(f"--image-path: is of folders; {options.images} holds {images.kind}")
    clip = describe_clip(options, options.ray_address) if options.clip_model else None
    job = Mmc4Job(
        kind="mmc4",
        max_record_bytes=options.max_record_bytes,
        key_prefix=options.key_prefix,
        images=images,
        image_path=options.image_path,
        policy=(policy := assembly_policy(options)),
        clip=clip,
        wanted=wanted_group(policy.grouping),
    )
    return run_conversion(
        options,
        job,
        options.docs,
        suffixes=SUFFIXES,
        list_segments=list_segments,
        byte_options=byte_options(options),
        quiet=quiet,
        excluded=excluded,
    )
