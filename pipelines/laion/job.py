"""How rows of image-text pairs are counted, and what a worker is told of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from mmdata.errors import BadInputError
from mmdata.fetch.policy import FetchPolicy
from mmdata.sources.base import RecordDropped
from mmdata.sources.fields import FieldSearch, as_raw
from mmdata.sources.laion import columns_of, count_rows, read_rows
from mmdata.sources.laion_columns import ColumnNames
from mmdata.sources.laion_rows import LaionRow, RowFilters, parse_row
from mmdata.sources.laion_text import Quoting
from mmdata.sources.records import Overlong, Segment
from mmdata.sources.split import URL_HOST, host_of
from pipelines.conversion.fields import scanned
from pipelines.conversion.job import ConversionJob, FormFault, overlong_fault
from pipelines.conversion.plan import SegmentScan
from pipelines.laion.options import FetcherName, Layout

#: Rows that are looked at before the work starts, to estimate sizes.
_PROBED_ROWS = 64
#: Of an image on the web, for estimates: nothing is asked before the work starts.
_ASSUMED_IMAGE_BYTES = 50_000


def _look_for_host(row: LaionRow, search: FieldSearch) -> None:
    """A host is known of a row's URL, in whatever column that is."""
    url = as_raw(row.values.get(row.columns.url))
    for wanted in [wanted for wanted in search.left if wanted.path == URL_HOST]:
        if host_of([url]) is not None:
            search.see([wanted])


@dataclass(frozen=True, slots=True, kw_only=True)
class LaionJob(ConversionJob):
    """How rows become samples."""

    names: ColumnNames
    filters: RowFilters
    layout: Layout
    fetcher: FetcherName
    fetch: FetchPolicy
    retry_failed: bool
    quoting: Quoting = "auto"

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
