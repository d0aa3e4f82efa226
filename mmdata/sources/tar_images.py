"""Images inside tars: plain ones, or img2dataset's webdataset output with a URL in each JSON.

Every tar's headers are walked once a process (2.5 us a member, no data read) and kept as offsets;
an image is then one open and one read. A tar with any damage that could hide or garble a member is
a bad input: which images were lost could not be told. Names of members are only compared with,
never used as paths; a `./` before them is none of the name, and a link inside a tar is the member
that it leads to.
"""

import io
import os
import tarfile
from array import array
from collections.abc import Callable, Iterator

import msgspec

from mmdata.errors import BadInputError, ReadFaultError, StorageError
from mmdata.images import ImageRejected
from mmdata.shards.structure import Damage, Fault, Member, walk
from mmdata.sources.name_index import IndexedImages
from mmdata.sources.names import ambiguous, is_junk, one_of, shown
from mmdata.storage.files import Buffer, open_buffer, read_range
from mmdata.wording import plural
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
    ".avif",
    ".heic",
    ".heif",
    ".jxl",
    ".jp2",
)
#: What archives of images hold beside them.
_NOT_PICTURES = frozenset(
    f".{ending}"
    for ending in (
        *("json", "jsonl", "txt", "csv", "tsv", "md", "html", "xml", "yaml", "yml", "cls"),
        *("npy", "npz", "pt", "pth", "pkl", "parquet", "safetensors", "mp3", "wav", "mp4", "webm"),
        *("zip", "tar", "gz", "py", "pdf"),
    )
)
_LINKS = ("hard link", "symbolic link")
_MOST_LINKS_IN_A_ROW = 8
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


class TarImages(IndexedImages):
    """Images of any number of tars, by name or URL.

    Raises:
        BadInputError: a tar is damaged or cannot be read.
    """

    def __init__(self, paths: tuple[str, ...], max_bytes: int) -> None:
        self._paths = paths
        self._max_bytes = max_bytes
        super().__init__("the tars of images")
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

    def take(self, name: str) -> bytes | None:
        """The member of this name; of several with the same name all must be the same picture."""
        rows = self._index.exact(name)
        if not rows:
            return None
        if len(rows) > 1 and len({self._sizes[row] for row in rows}) > 1:
            raise ambiguous(name, f"{plural(len(rows), 'member')} of other sizes have this name")
        return one_of(name, (self._data(row, name) for row in rows))

    def length(self, name: str) -> int | None:
        """Bytes of the member of this name."""
        rows = self._index.exact(name)
        return self._sizes[rows[0]] if rows else None

    def take_url(self, url: str) -> bytes | None:
        """The member whose JSON names a URL."""
        row = self._index.of_url(url)
        return None if row is None else self._data(row, url)

    def length_url(self, url: str) -> int | None:
        """Bytes of the member whose JSON names a URL."""
        row = self._index.of_url(url)
        return None if row is None else self._sizes[row]

    def where(self) -> str:
        """What is looked in, for a person."""
        by = "name or URL" if self.by_url else "name"
        first = os.path.basename(self._paths[0])
        more = f" and {len(self._paths) - 1} more" if len(self._paths) > 1 else ""
        return f"{first}{more} ({plural(len(self._files), 'image')} in tars, by {by})"

    def _data(self, row: int, name: str) -> bytes:
        path, size = self._paths[self._files[row]], self._sizes[row]
        if size > self._max_bytes:
            detail = f"{shown(name)}: {size} bytes, at most {self._max_bytes} are taken"
            raise ImageRejected(ImageDrop.TOO_LARGE, detail)
        try:
            data = read_range(path, self._offsets[row], size)
        except StorageError:
            raise
        except OSError as error:
            raise ReadFaultError(path, error) from error
        if len(data) != size:
            raise BadInputError(f"{path}: has changed since it was indexed; run again")
        return data


def _images(path: str) -> list[tuple[Member, str]]:
    """A tar's images, each with the URL that the JSON of its key names."""
    images: list[Member] = []
    urls: dict[str, str] = {}
    links: list[str] = []
    try:
        with open_buffer(path) as data:
            for member in walk(data, _refuse(path, links)):
                name = member_name(member.name)
                if is_junk(name):
                    continue
                suffix = os.path.splitext(name)[1].lower()
                if suffix == ".json":
                    _note_url(urls, data, member, name)
                elif suffix not in _NOT_PICTURES:
                    images.append(member._replace(name=name))
            if links:
                images += _linked(data, {member.name: member for member in images})
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror or error}") from error
    return [(member, urls.get(_key(member.name), "")) for member in images]


def member_name(name: str) -> str:
    """A member's name as the path inside the folder that was packed: without `./` and `/`."""
    if name.startswith(("/", "./")) or "//" in name or "/./" in name:
        return "/".join(part for part in name.split("/") if part not in ("", "."))
    return name


def _linked(data: Buffer, images: dict[str, Member]) -> Iterator[Member]:
    """The links of a tar that lead to its images, as members of their own.

    Where a link leads may stand in a header before its own, which `tarfile` puts together; a tar
    with links is read once more for that, by 20 us a member.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    targets: dict[str, str] = {}
    with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as archive:
        for info in archive:
            name = member_name(info.name)
            if info.islnk():
                targets[name] = member_name(info.linkname)
            elif info.issym():
                beside = os.path.join(os.path.dirname(name), info.linkname)
                targets[name] = os.path.normpath(beside)
    for name, target in targets.items():
        for _ in range(_MOST_LINKS_IN_A_ROW):
            target = targets.get(target, target)
        if target in images and name not in images and not is_junk(name):
            yield images[target]._replace(name=name)


def _note_url(urls: dict[str, str], data: Buffer, member: Member, name: str) -> None:
    url = url_of(data[member.offset : member.offset + member.size])
    if url:
        urls[_key(name)] = url


def _key(name: str) -> str:
    return os.path.splitext(name)[0]


def _refuse(path: str, links: list[str]) -> Callable[[Fault], None]:
    """Turns the first fault that matters into an error, and notes links."""

    def report(fault: Fault) -> None:
        if fault.damage not in _HARMLESS:
            raise BadInputError(
                f"{path}: damaged tar at byte {fault.offset}: expected {fault.expected}, "
                f"got {fault.got}; fetch it again"
            )
        if fault.damage == Damage.NOT_A_FILE and fault.got in _LINKS:
            links.append(fault.name)

    return report
