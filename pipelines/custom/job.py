"""How records of conversations are counted, looked at and made samples."""

from dataclasses import dataclass, replace

from mmdata.samples.assemble import Draft, Outcome, assemble, check
from mmdata.sources.base import RecordDropped, SourceDocument, SourceImage
from mmdata.sources.conversations.formats import Reading, parse_record
from mmdata.sources.image_store import ImageSource, find_in_folders, open_images
from mmdata.sources.names import NamedImages, Near, decoded_path
from mmdata.sources.pseudonyms import Pseudonyms
from mmdata.sources.records import Overlong, Segment
from mmdata.storage.files import real_path
from pipelines.clip.backend import front_end
from pipelines.conversion.counts import overlong_drop
from pipelines.conversion.image_inputs import reader
from pipelines.conversion.job import RecordsJob
from pipelines.conversion.plan import SegmentScan
from pipelines.conversion.scan import scan_records
from schemas.reasons import ImageNote

#: Records that are parsed before the work starts where none of them lists an image.
_PROBED_RECORDS = 2000


class _NoImages(NamedImages):
    """In place of an image root: records are to hold their images."""

    def take(self, name: str) -> None:
        return None

    def length(self, name: str) -> None:
        return None

    def near(self, name: str) -> list[Near]:
        return []

    def nowhere(self) -> str:
        return "there is no --image-root to look in"

    def where(self) -> str:
        return "the records themselves: --image-root says where else"


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomJob(RecordsJob):
    """How records of conversations become samples."""

    images: ImageSource | None
    reading: Reading
    names: Pseudonyms | None = None

    def store(self, segment: Segment) -> NamedImages:
        """Where images lie that are not in the records."""
        if self.images is None:
            return _NoImages()
        if self.images.kind != "folder":
            return open_images(self.images, self.policy.images.max_bytes)
        most = self.policy.images.max_bytes
        return find_in_folders(self.images, "", "", named=True, pattern=None, max_bytes=most)

    def converter(self, store: NamedImages) -> "CustomConverter":
        """What converts records whose images lie in a store."""
        return CustomConverter(self, store)

    def parse(self, record: bytes) -> SourceDocument:
        """A record as a document; names below the image root are made relative to it.

        Raises:
            RecordDropped: it is broken.
            RecordError: its placeholders do not fit, and that is to be an error.
        """
        document = parse_record(record, self.reading)
        if self.images is None or not self.images.root:
            return document
        for index, image in enumerate(document.images):
            if image.name.startswith("/") or ":" in image.name:
                document.images[index] = _relative(image, self.images.root)
        return document

    def scan(self, segment: Segment) -> SegmentScan:
        """Count records; look for images until one is found, and for some more to know sizes.

        Raises:
            BadInputError: damaged, or none of its images is there.
        """
        return scan_records(
            self,
            segment,
            remedy="--image-root is the folder that their names are relative to",
            most_without=_PROBED_RECORDS,
        )

    def size(self, image: SourceImage, store: NamedImages, url: str) -> int | None:
        """Look for an image: its bytes, or None where it is not there."""
        if image.embedded:
            return len(image.embedded) * 3 // 4
        return store.size(image.name, url) if image.name else None


class CustomConverter:
    """Makes a sample of a record; a draft where CLIP is to score it."""

    def __init__(self, job: CustomJob, store: NamedImages) -> None:
        self._job = job
        self._store = store
        self._pixels = front_end(job.clip).pixels if job.clip else None

    def __call__(self, record: bytes | Overlong) -> Outcome | Draft:
        """One record as a sample, or why not."""
        job, names = self._job, self._job.names
        if isinstance(record, Overlong):
            return overlong_drop(record, job.max_record_bytes)
        try:
            document = job.parse(record)
        except RecordDropped as dropped:
            return Outcome(drop=(dropped.reason, "" if names else dropped.detail))
        policy, read = job.policy, reader(self._store, document)
        if policy.grouping is not None:
            document = policy.grouping.of_record(document, record)
        if names is not None:
            if policy.split is not None and not policy.split.holds(document):
                return Outcome(placed=True, elsewhere=True)
            policy, read = replace(policy, split=None), names.reader(document, read)
            document = names.of_record(document, record)
        if self._pixels is None:
            return self._told(assemble(document, read, policy))
        draft = check(document, read, policy, self._pixels)
        self._told(draft.outcome)
        return draft

    def _told(self, outcome: Outcome) -> Outcome:
        """What became of a record, without what its details may tell of the source."""
        if self._job.names is not None:
            if outcome.drop:
                outcome.drop = (outcome.drop[0], "")
            for index, (reason, _) in outcome.dropped_images.items():
                outcome.dropped_images[index] = (reason, "")
        return outcome


def _relative(image: SourceImage, root: str) -> SourceImage:
    """An image with its name relative to the image folder, where it is a whole path into that."""
    path = decoded_path(image.name)
    for folder in dict.fromkeys((root, real_path(root))):
        if path is not None and path.startswith(folder + "/"):
            name = path[len(folder) + 1 :]
            return replace(image, name=name, notes=(*image.notes, ImageNote.FOUND_BY_FILE_URL))
        if image.name.startswith(folder + "/"):
            return replace(image, name=image.name[len(folder) + 1 :])
    return image
