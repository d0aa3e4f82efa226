"""How MMC4 documents are counted, looked at and made samples."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import inf

from mmdata.errors import BadInputError
from mmdata.samples.assemble import AssemblyPolicy, Draft, Outcome, assemble, check
from mmdata.sources import mmc4
from mmdata.sources.base import RecordDropped, SourceDocument, SourceImage
from mmdata.sources.fields import WantedField
from mmdata.sources.image_objects import ImageObjects
from mmdata.sources.image_store import ImageSource, ShardImages, find_in_folders, open_images
from mmdata.sources.mmc4 import shard_name
from mmdata.sources.names import NamedImages
from mmdata.sources.records import Overlong, Segment
from pipelines.clip.backend import front_end
from pipelines.clip.model import ClipSpec
from pipelines.conversion.counts import overlong_drop
from pipelines.conversion.form import FormFault, json_forms
from pipelines.conversion.image_inputs import fetch_ahead, reader
from pipelines.conversion.plan import SegmentScan
from pipelines.conversion.scan import scan_records
from schemas.manifest import Kind


@dataclass(frozen=True, slots=True)
class Mmc4Job:
    """How MMC4 records become samples."""

    kind: Kind
    max_record_bytes: int
    key_prefix: str
    images: ImageSource
    image_path: str | None
    policy: AssemblyPolicy
    clip: ClipSpec | None = None
    wanted: tuple[WantedField, ...] = ()

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

    def open(self, segment: Segment) -> "Mmc4Converter":
        """What converts a segment's records."""
        store = self.store(segment)
        far = isinstance(store, ImageObjects)
        return FarMmc4Converter(self, store) if far else Mmc4Converter(self, store)

    def parse(self, record: bytes) -> SourceDocument:
        """A record as a document, with its similarities where nothing computes them anew.

        Raises:
            RecordDropped: it is broken.
        """
        return mmc4.parse_record(record, matrix_wanted=self.clip is None)

    def size(self, image: SourceImage, store: NamedImages, url: str) -> int | None:
        """Look for an image: its bytes, or None where it is not there."""
        return store.size(image.name, url)

    def scan(self, segment: Segment) -> SegmentScan:
        """Count records; look for images until one is found, and for some more to know sizes.

        Raises:
            BadInputError: damaged, a JSON array instead of lines, or none of its images is there.
        """
        return scan_records(
            self,
            segment,
            self.store(segment),
            remedy="fetch them with `mmdata fetch-images`, say where they are with --image-path "
            "'{root}/{shard}/{image_name}', or, if they are links, where those may lead with "
            "--allow-symlinks-to",
            most_without=inf,
            check_first=_refuse_array,
        )

    def forms(self, segment: Segment) -> Iterator[FormFault | None]:
        """Every record by the parser that converts it."""
        return json_forms(segment, self.max_record_bytes, self.parse)


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


class FarMmc4Converter(Mmc4Converter):
    """Converts records whose images are requests to a store: the next records' go out early."""

    def ahead(self, record: bytes | Overlong) -> None:
        """Begin to fetch a record's images."""
        fetch_ahead(self._store, partial(mmc4.parse_record, matrix_wanted=False), record)


def _refuse_array(record: bytes, segment: Segment) -> None:
    """A whole file that is one JSON array is not JSON lines."""
    if record.lstrip()[:2] in (b"[{", b"[") or record.lstrip().startswith(b"[ {"):
        raise BadInputError(
            f"{segment.label}: is one JSON array, not JSON lines; write one object a line "
            "(jq -c '.[]' does)"
        )
