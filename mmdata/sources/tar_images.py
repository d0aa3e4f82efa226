"""Images inside tars: plain ones, or img2dataset's webdataset output with a URL in each JSON.

Every tar's headers are walked once a process (2.5 us a member, no data read) and kept as offsets;
an image is then one open and one read. A tar with any damage that could hide or garble a member is
a bad input: which images were lost could not be told. Names of members are only compared with,
never used as paths.
"""

import os
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from mmdata.errors import BadInputError, ReadFaultError, StorageError
from mmdata.images import ImageRejected
from mmdata.shards.structure import Damage, Fault, Member, walk
from mmdata.sources.image_folder import check_name
from mmdata.sources.name_index import NameIndex, stem_of
from mmdata.storage.files import Buffer, open_buffer, read_range
from schemas.reasons import ImageDrop

IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".jfif",
    ".jpe",
)
_HARMLESS = frozenset((Damage.NOT_A_FILE, Damage.TRAILING, Damage.PADDING))


class _Metadata(msgspec.Struct):
    """What is used of the JSON that img2dataset puts beside an image."""

    url: str | None = None


_METADATA = msgspec.json.Decoder(_Metadata)


def url_of(metadata: bytes) -> str:
    """The URL in a JSON beside an image; empty where there is none."""
    try:
        return _METADATA.decode(metadata).url or ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


@dataclass(frozen=True, slots=True)
class _Place:
    """One image's data: offset and size in bytes."""

    path: str
    offset: int
    size: int


class TarImages:
    """Images of any number of tars, by name or URL.

    Raises:
        BadInputError: a tar is damaged or cannot be read.
    """

    def __init__(self, paths: tuple[str, ...], max_bytes: int) -> None:
        self._paths = paths
        self._max_bytes = max_bytes
        self._index = NameIndex()
        self._files, self._offsets, self._sizes = array("L"), array("Q"), array("Q")
        for number, path in enumerate(paths):
            for member, url in _images(path):
                self._index.add(member.name, len(self._files))
                if url:
                    self._index.add_url(url, len(self._files))
                self._files.append(number)
                self._offsets.append(member.offset)
                self._sizes.append(member.size)
        self._index.finish()

    def __len__(self) -> int:
        return len(self._files)

    @property
    def by_url(self) -> bool:
        """Whether images can be found by URL."""
        return self._index.has_urls

    def read(self, name: str, url: str = "") -> bytes:
        """The bytes of an image.

        Raises:
            ImageRejected: missing, unsafe-path or too-large.
        """
        place = self._find(name, url)
        if place is None:
            raise ImageRejected(ImageDrop.MISSING, f"{name}: not in the tars of images")
        if place.size > self._max_bytes:
            detail = f"{name}: {place.size} bytes, at most {self._max_bytes} are taken"
            raise ImageRejected(ImageDrop.TOO_LARGE, detail)
        try:
            data = read_range(place.path, place.offset, place.size)
        except StorageError:
            raise
        except OSError as error:
            raise ReadFaultError(place.path, error) from error
        if len(data) != place.size:
            raise BadInputError(f"{place.path}: has changed since it was indexed; run again")
        return data

    def size(self, name: str, url: str = "") -> int | None:
        """Bytes of an image; None when it is not there."""
        try:
            place = self._find(name, url)
        except ImageRejected:
            return None
        return place.size if place else None

    def where(self) -> str:
        """What is looked in, for a person."""
        by = "name or URL" if self.by_url else "name"
        first = os.path.basename(self._paths[0])
        more = f" and {len(self._paths) - 1} more" if len(self._paths) > 1 else ""
        return f"{first}{more} ({len(self._files)} images in tars, by {by})"

    def _find(self, name: str, url: str) -> _Place | None:
        check_name(name)
        row = self._index.find(name, url)
        if row is None:
            return None
        return _Place(self._paths[self._files[row]], self._offsets[row], self._sizes[row])


def _images(path: str) -> list[tuple[Member, str]]:
    """A tar's images, each with the URL that the JSON of its key names."""
    images: list[Member] = []
    urls: dict[str, str] = {}
    try:
        with open_buffer(path) as data:
            for member in walk(data, _refuse(path)):
                suffix = os.path.splitext(member.name)[1].lower()
                if suffix in IMAGE_SUFFIXES:
                    images.append(member)
                elif suffix == ".json":
                    _note_url(urls, data, member)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror or error}") from error
    return [(member, urls.get(_key(member.name), "")) for member in images]


def _note_url(urls: dict[str, str], data: Buffer, member: Member) -> None:
    url = url_of(data[member.offset : member.offset + member.size])
    if url:
        urls[_key(member.name)] = url


def _key(name: str) -> str:
    return name.rpartition("/")[0] + "/" + stem_of(name)


def _refuse(path: str) -> Callable[[Fault], None]:
    """Turns the first fault that matters into an error."""

    def report(fault: Fault) -> None:
        if fault.damage not in _HARMLESS:
            raise BadInputError(
                f"{path}: damaged tar at byte {fault.offset}: expected {fault.expected}, "
                f"got {fault.got}; fetch it again"
            )

    return report
