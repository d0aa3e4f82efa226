"""What a conversion asks of its job: how one kind of input is counted, looked at and converted."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mmdata.samples.assemble import AssemblyPolicy, Draft, Outcome
from mmdata.sources.base import RecordDropped, RecordError, SourceDocument, SourceImage
from mmdata.sources.fields import WantedField
from mmdata.sources.names import NamedImages
from mmdata.sources.records import Overlong, Segment, read_records
from mmdata.sources.strict_json import decode_object
from pipelines.clip.model import ClipSpec
from pipelines.conversion.counts import overlong_drop
from pipelines.conversion.plan import SegmentScan
from schemas.manifest import Kind

#: Turns a record into a sample, or into a draft where CLIP is to score it.
RecordConverter = Callable[[bytes | Overlong], Outcome | Draft]


@dataclass(frozen=True, slots=True)
class FormFault:
    """A record that cannot be read for its form.

    Attributes:
        dropped: why.
        fields: that it has, by name; empty where it is no object.
    """

    dropped: RecordDropped
    fields: tuple[str, ...] = ()


def overlong_fault(record: Overlong, limit: int) -> FormFault | None:
    """A record that is longer than the limit."""
    drop = overlong_drop(record, limit).drop
    return FormFault(RecordDropped(*drop)) if drop else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionJob(ABC):
    """How one kind of input becomes samples; picklable.

    Attributes:
        kind: of conversion, as plan and manifest name it.
        max_record_bytes: longer records are passed over.
        key_prefix: put before every sample key.
        policy: what is kept of a document.
        clip: what computes the similarities, of documents that the job then leaves unaligned; None
            where the source has them.
        wanted: fields of the records that options name.
    """

    kind: Kind
    max_record_bytes: int
    key_prefix: str
    policy: AssemblyPolicy
    clip: ClipSpec | None = None
    wanted: tuple[WantedField, ...] = ()

    @abstractmethod
    def scan(self, segment: Segment) -> SegmentScan:
        """Count a segment's records and look for its first images.

        Raises:
            BadInputError: it is damaged, or lacks what is needed.
        """

    @abstractmethod
    def forms(self, segment: Segment) -> Iterator[FormFault | None]:
        """Every record of a segment by the parser that converts it: None, or why it is none."""


class RecordsJob(ConversionJob):
    """A job whose records are JSON objects that name images, which lie in a store."""

    __slots__ = ()

    @abstractmethod
    def store(self, segment: Segment) -> NamedImages:
        """Where a segment's images lie."""

    @abstractmethod
    def parse(self, record: bytes) -> SourceDocument:
        """Read a record.

        Raises:
            RecordDropped: it is broken.
            RecordError: it is of the form, and ends its unit for another reason.
        """

    @abstractmethod
    def converter(self, store: NamedImages) -> RecordConverter:
        """What converts records whose images lie in a store."""

    def parse_ahead(self, record: bytes) -> SourceDocument:
        """Read a record for the names of its images alone; raises what `parse` does."""
        return self.parse(record)

    def size(self, image: SourceImage, store: NamedImages, url: str) -> int | None:
        """Look for an image: its bytes, or None where it is not there."""
        return store.size(image.name, url)

    def forms(self, segment: Segment) -> Iterator[FormFault | None]:
        """Every record of a segment by the parser that converts it: None, or why it is none."""
        for record in read_records(segment, self.max_record_bytes):
            if isinstance(record, Overlong):
                yield overlong_fault(record, self.max_record_bytes)
                continue
            try:
                self.parse(record)
            except RecordDropped as dropped:
                yield FormFault(dropped, _fields(record))
            except RecordError:  # told when it ends its unit
                yield None
            else:
                yield None


def _fields(record: bytes) -> tuple[str, ...]:
    try:
        return tuple(decode_object(record))
    except RecordDropped:
        return ()
