"""convert-laion: lists of image-text pairs to shards, their images fetched on the way."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from mmdata.errors import BadInputError
from mmdata.fetch.policy import FetchPolicy
from mmdata.samples.assemble import AssemblyPolicy
from mmdata.sources.base import RecordDropped
from mmdata.sources.fields import FieldSearch, WantedField, as_raw
from mmdata.sources.laion import (
    SUFFIXES,
    columns_of,
    count_rows,
    expand_folders,
    list_segments,
    read_rows,
)
from mmdata.sources.laion_columns import ColumnNames
from mmdata.sources.laion_rows import LaionRow, RowFilters, parse_row
from mmdata.sources.laion_text import Quoting
from mmdata.sources.records import Overlong, Segment
from mmdata.sources.split import URL_HOST, host_of
from pipelines.clip.backend import describe_clip
from pipelines.clip.model import ClipSpec
from pipelines.conversion.fields import scanned, wanted_group
from pipelines.conversion.form import FormFault, overlong_fault
from pipelines.conversion.plan import SegmentScan
from pipelines.conversion.policy import assembly_policy, byte_options
from pipelines.conversion.run import ConversionResult, run_conversion
from pipelines.laion.options import ConvertLaion, FetcherName, Layout
from pipelines.laion.outcomes import has_failed
from pipelines.laion.unit import laion_unit
from schemas.manifest import Kind

#: Rows that are looked at before the work starts, to estimate sizes.
_PROBED_ROWS = 64
#: Of an image on the web, for estimates: nothing is asked before the work starts.
_ASSUMED_IMAGE_BYTES = 50_000
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
    recipe = LaionRecipe(
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
        recipe,
        expand_folders(options.inputs),
        suffixes=SUFFIXES,
        list_segments=list_segments,
        byte_options=byte_options(options) | _byte_options(options),
        quiet=quiet,
        clip=clip,
        wanted=recipe.wanted,
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


def _look_for_host(row: LaionRow, search: FieldSearch) -> None:
    """A host is known of a row's URL, in whatever column that is."""
    url = as_raw(row.values.get(row.columns.url))
    for wanted in [wanted for wanted in search.left if wanted.path == URL_HOST]:
        if host_of([url]) is not None:
            search.see([wanted])


@dataclass(frozen=True, slots=True)
class LaionRecipe:
    """How rows become samples."""

    kind: Kind
    max_record_bytes: int
    key_prefix: str
    names: ColumnNames
    filters: RowFilters
    policy: AssemblyPolicy
    layout: Layout
    fetcher: FetcherName
    fetch: FetchPolicy
    retry_failed: bool
    clip: ClipSpec | None = None
    quoting: Quoting = "auto"
    wanted: tuple[WantedField, ...] = ()

    def scan(self, segment: Segment) -> SegmentScan:
        """Count rows, and look at the first ones; nothing is fetched.

        Raises:
            BadInputError: damaged, or it lacks a column that is needed.
        """
        columns = columns_of(segment, self.names, self.max_record_bytes, self.quoting)
        if columns is not None and (problem := self.filters.missing(columns)):
            raise BadInputError(f"{segment.path}: {problem}")
        search = FieldSearch(self.wanted)
        records, crc32 = count_rows(
            segment, self.names, self.max_record_bytes, self.quoting, search
        )
        scan = SegmentScan(records=records, crc32=crc32, record_bytes=500 * records)
        rows = read_rows(segment, self.names, self.max_record_bytes, self.quoting)
        lacking: list[str] = []
        for row in islice(rows, _PROBED_ROWS):
            scan.probed_records += 1
            if isinstance(row, LaionRow):
                self._probe(row, segment, scan)
                lacking.append(self.filters.missing(row.columns))
                _look_for_host(row, search)
        if lacking and all(lacking):
            raise BadInputError(f"{segment.path}: {lacking[0]}")
        scan.fields = scanned(search)
        return scan

    def forms(self, segment: Segment) -> Iterator[FormFault | None]:
        """Every row by the parser that converts it."""
        for row in read_rows(segment, self.names, self.max_record_bytes, self.quoting):
            if isinstance(row, Overlong):
                yield overlong_fault(row, self.max_record_bytes)
            elif isinstance(row, RecordDropped):
                yield FormFault(row, row.fields)
            else:
                yield _form_of(row)

    def _probe(self, row: LaionRow, segment: Segment, scan: SegmentScan) -> None:
        scan.probed_images += 1
        if row.has_image:
            scan.looked_in = "the input itself"
            scan.probed_found += row.image is not None
            scan.probed_bytes += len(row.image or b"")
        elif self.fetcher == "none":
            raise BadInputError(
                f"{segment.path}: holds URLs, no images; --fetcher none asks for inputs that hold "
                "them"
            )
        else:
            scan.looked_in = "the web; not asked yet, 50 kB each are assumed"
            scan.probed_found += 1
            scan.probed_bytes += _ASSUMED_IMAGE_BYTES


def _form_of(row: LaionRow) -> FormFault | None:
    try:
        parse_row(row)
    except RecordDropped as dropped:
        return FormFault(dropped, tuple(row.values))
    return None
