"""How MMC4 documents are counted, looked at and made samples."""

from dataclasses import dataclass
from math import inf

from mmdata.errors import BadInputError
from mmdata.samples.assemble import Draft, Outcome, assemble, check
from mmdata.sources import mmc4
from mmdata.sources.base import RecordDropped, SourceDocument
from mmdata.sources.image_store import ImageSource, ShardImages, find_in_folders, open_images
from mmdata.sources.mmc4 import shard_name
from mmdata.sources.names import NamedImages
from mmdata.sources.records import Overlong, Segment
from pipelines.clip.backend import front_end
from pipelines.conversion.counts import overlong_drop
from pipelines.conversion.image_inputs import reader
from pipelines.conversion.job import RecordsJob
from pipelines.conversion.plan import SegmentScan
from pipelines.conversion.scan import scan_records


@dataclass(frozen=True, slots=True, kw_only=True)
class Mmc4Job(RecordsJob):
    """How MMC4 records become samples."""

    images: ImageSource
    image_path: str | None

    def store(self, segment: Segment) -> NamedImages:
        """Where a segment's images lie."""
        name = shard_name(segment)
        if self.images.kind != "folder":
            images = open_images(self.images, self.policy.images.max_bytes)
            of_keys = self.images.kind == "img2dataset-files"  # whose folders number other shards
            return images if of_keys else ShardImages(images, name.number, name.stem)
        return find_in_folders(
            self.images,
            name.number,
            name.stem,
            named=name.in_file_name,
            pattern=self.image_path,
            max_bytes=self.policy.images.max_bytes,
        )

    def converter(self, store: NamedImages) -> "Mmc4Converter":
        """What converts records whose images lie in a store."""
        return Mmc4Converter(self, store)

    def parse(self, record: bytes) -> SourceDocument:
        """A record as a document, with its similarities where nothing computes them anew.

        Raises:
            RecordDropped: it is broken.
        """
        return mmc4.parse_record(record, matrix_wanted=self.clip is None)

    def parse_ahead(self, record: bytes) -> SourceDocument:
        """Read a record for the names of its images alone.

        Raises:
            RecordDropped: it is broken.
        """
        return mmc4.parse_record(record, matrix_wanted=False)

    def scan(self, segment: Segment) -> SegmentScan:
        """Count records; look for images until one is found, and for some more to know sizes.

        Raises:
            BadInputError: damaged, a JSON array instead of lines, or none of its images is there.
        """
        return scan_records(
            self,
            segment,
            remedy="fetch them with `mmdata fetch-images`, say where they are with --image-path "
            "'{root}/{shard}/{image_name}', or, if they are links, where those may lead with "
            "--allow-symlinks-to",
            most_without=inf,
            check_first=_refuse_array,
        )


class Mmc4Converter:
    """Makes a sample of a record; a draft where CLIP is to score it."""

    def __init__(self, job: Mmc4Job, store: NamedImages) -> None:
        self._job = job
        self._store = store
        self._front = front_end(job.clip) if job.clip else None

    def __call__(self, record: bytes | Overlong) -> Outcome | Draft:
        """One record as a sample, or why not."""
        if isinstance(record, Overlong):
            return overlong_drop(record, self._job.max_record_bytes)
        try:
            document = self._job.parse(record)
        except RecordDropped as dropped:
            return Outcome(drop=(dropped.reason, dropped.detail))
        if (grouping := self._job.policy.grouping) is not None:
            document = grouping.of_record(document, record)
        read = reader(self._store, document)
        if self._front is not None:
            return check(document, read, self._job.policy, self._front.pixels)
        return assemble(document, read, self._job.policy)


def _refuse_array(record: bytes, segment: Segment) -> None:
    """A whole file that is one JSON array is not JSON lines."""
    if record.lstrip()[:2] in (b"[{", b"[") or record.lstrip().startswith(b"[ {"):
        raise BadInputError(
            f"{segment.label}: is one JSON array, not JSON lines; write one object a line "
            "(jq -c '.[]' does)"
        )
