"""convert-laion: lists of image-text pairs to shards, their images fetched on the way."""

import sys
from dataclasses import replace
from typing import Any

from mmdata.samples.assemble import AssemblyPolicy
from mmdata.sources.laion import SUFFIXES, expand_folders, list_segments
from mmdata.sources.laion_columns import ColumnNames
from mmdata.sources.laion_rows import RowFilters
from pipelines.clip.backend import describe_clip
from pipelines.conversion.fields import wanted_group
from pipelines.conversion.policy import assembly_policy, byte_options
from pipelines.conversion.result import ConversionResult
from pipelines.conversion.run import run_conversion
from pipelines.downloads.outcomes import has_failed
from pipelines.laion.job import LaionJob
from pipelines.laion.options import ConvertLaion, FetcherName
from pipelines.laion.unit import laion_unit

#: Rough rate of one worker that downloads, or that reads images from its input.
_DOWNLOADS_PER_SECOND = 200.0
_IMAGES_PER_SECOND = 1200.0
#: Options that change which rows become samples, or what of them stands in the shards.
_BYTE_OPTIONS = (
    *("layout", "url_col", "caption_col", "similarity_col", "min_caption_similarity"),
    *("max_punsafe", "max_pwatermark", "nsfw", "min_size", "max_bytes", "ignore_noai"),
)


def convert_laion(options: ConvertLaion, *, quiet: bool = False) -> ConversionResult:
    """Convert image-text pairs to shards; the same call again goes on where it stopped.

    Args:
        options: see `ConvertLaion`.
        quiet: no progress bar.

    Raises:
        UserError: it cannot start as asked; nothing was written.
        BadInputError: inputs are missing or damaged; all of them are named.
        MissingExtraError: what the fetcher needs is not installed.
    """
    _check_fetcher(options.fetcher, quiet=quiet)
    clip = describe_clip(options, options.ray_address) if options.clip_model else None
    job = LaionJob(
        kind="laion",
        max_record_bytes=options.max_record_bytes,
        key_prefix=options.key_prefix,
        names=ColumnNames(
            url=options.url_col, caption=options.caption_col, similarity=options.similarity_col
        ),
        filters=_filters(options),
        policy=(policy := _policy(options)),
        layout=options.layout,
        fetcher=options.fetcher,
        fetch=options.fetch_policy(),
        retry_failed=options.retry_failed,
        clip=clip,
        quoting=options.quoting,
        wanted=wanted_group(policy.grouping),
    )
    return run_conversion(
        options,
        job,
        expand_folders(options.inputs),
        suffixes=SUFFIXES,
        list_segments=list_segments,
        byte_options=byte_options(options) | _byte_options(options),
        quiet=quiet,
        run=laion_unit,
        rate=_IMAGES_PER_SECOND if options.fetcher == "none" else _DOWNLOADS_PER_SECOND,
        is_stale=has_failed if options.retry_failed else None,
    )


def _check_fetcher(fetcher: FetcherName, *, quiet: bool) -> None:
    """Say at once what is missing, and what img2dataset does not promise."""
    if fetcher == "native":
        from mmdata.fetch.ahead import check_installed

        check_installed()
    elif fetcher == "img2dataset":
        from pipelines.laion.img2dataset import NO_GUARANTEES, check_installed

        check_installed()
        if not quiet:
            sys.stderr.write(NO_GUARANTEES + "\n")


def _filters(options: ConvertLaion) -> RowFilters:
    return RowFilters(
        min_caption_similarity=options.min_caption_similarity,
        max_punsafe=options.max_punsafe,
        max_pwatermark=options.max_pwatermark,
        nsfw=tuple(value.strip().lower() for value in options.nsfw),
        min_size=options.min_size,
        max_aspect=options.max_aspect,
    )


def _policy(options: ConvertLaion) -> AssemblyPolicy:
    """What a pair must be like; --min-size holds for the picture itself as for its row."""
    policy = assembly_policy(options)
    side = max(options.min_side, options.min_size)
    return replace(policy, images=replace(policy.images, min_side=side))


def _byte_options(options: ConvertLaion) -> dict[str, Any]:
    values = {name: getattr(options, name) for name in _BYTE_OPTIONS}
    if options.quoting != "auto":
        values["quoting"] = options.quoting
    return values | {"nsfw": list(options.nsfw)}
