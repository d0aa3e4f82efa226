"""Records of JSON counted before a conversion begins, their fields and images looked for.

The images of a few records are enough to estimate sizes; where none is found, all are looked for.
"""

import zlib
from collections.abc import Callable
from contextlib import suppress

from mmdata.errors import BadInputError
from mmdata.sources.base import RecordDropped, RecordError
from mmdata.sources.fields import FieldSearch
from mmdata.sources.names import NamedImages
from mmdata.sources.records import Overlong, Segment, read_records
from mmdata.sources.split import URL_HOST, group_of
from pipelines.conversion.fields import scanned
from pipelines.conversion.image_inputs import image_urls
from pipelines.conversion.job import RecordsJob
from pipelines.conversion.plan import SegmentScan

#: Images that are looked for in a segment before the work starts.
_PROBED_IMAGES = 64


def scan_records(
    job: RecordsJob,
    segment: Segment,
    *,
    remedy: str,
    most_without: float,
    check_first: Callable[[bytes, Segment], None] | None = None,
) -> SegmentScan:
    """Count a segment's records, and look for their images until some are found.

    Args:
        job: how its records are read.
        segment: what is counted.
        remedy: what to do where none of them is found.
        most_without: records that are parsed where none of them lists an image.
        check_first: raises BadInputError where the first record shows another kind of file.

    Raises:
        BadInputError: it is damaged, or none of its images is there.
    """
    store = job.store(segment)
    scan, search = SegmentScan(looked_in=store.where()), FieldSearch(job.wanted)
    for record in read_records(segment, job.max_record_bytes):
        if isinstance(record, Overlong):
            scan.records += 1
            scan.record_bytes += record.num_bytes
            scan.crc32 = zlib.crc32(b"%d" % record.num_bytes, scan.crc32)
            continue
        if check_first and scan.records == 0 and segment.start == 0:
            check_first(record, segment)
        scan.records += 1
        _look(job, record, search)
        scan.record_bytes += len(record)
        scan.crc32 = zlib.crc32(b"\n", zlib.crc32(record, scan.crc32))
        if _wants_more(scan, most_without):
            _probe(job, record, store, scan)
    if scan.probed_images and not scan.probed_found:
        raise BadInputError(
            f"{segment.label}: none of its {scan.probed_images} images was found in "
            f"{store.where()}; {remedy}",
            short=f"none of its {scan.probed_images} images was found",
        )
    scan.fields = scanned(search)
    return scan


def _look(job: RecordsJob, record: bytes, search: FieldSearch) -> None:
    """Look for the fields that options name; a host is known of a whole document only."""
    search.look_at_record(record)
    for wanted in [wanted for wanted in search.left if wanted.path == URL_HOST]:
        with suppress(RecordDropped, RecordError):
            if group_of(job.parse(record), {}, URL_HOST) is not None:
                search.see([wanted])


def _wants_more(scan: SegmentScan, most_without: float) -> bool:
    """Whether the next record's images are to be looked for."""
    if not scan.probed_images:
        return scan.probed_records < most_without
    return scan.probed_found == 0 or scan.probed_images < _PROBED_IMAGES


def _probe(job: RecordsJob, record: bytes, store: NamedImages, scan: SegmentScan) -> None:
    """Look for one record's images; what is wrong with it is told when it is converted."""
    try:
        document = job.parse(record)
    except (RecordDropped, RecordError):
        return
    scan.probed_records += 1
    urls = image_urls(document) if store.by_url else {}
    for image in document.images:
        scan.probed_images += 1
        size = job.size(image, store, urls.get(image.name, ""))
        if size is not None:
            scan.probed_found += 1
            scan.probed_bytes += size
