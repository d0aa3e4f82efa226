"""Images one by one in an object store or on a web server, as `--images s3://bucket/images`.

A read there takes 20 to 100 ms, whatever the image's size, so the images of the next documents are
fetched ahead by 16 threads; decoding stays in the caller's. What is fetched ahead and never asked
for is let go of. Trouble of the store is not the image's: only "not found" makes it missing, all
else fails the unit.
"""

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, cast, runtime_checkable
from urllib.parse import quote

from mmdata.errors import StorageError
from mmdata.images import ImageRejected
from mmdata.sources.image_folder import check_name
from mmdata.storage.files import is_folder, size_of
from mmdata.storage.urls import filesystem, is_web, store_errors
from schemas.reasons import ImageDrop

_THREADS = 16
_MOST_AHEAD = 256


@runtime_checkable
class FetchesAhead(Protocol):
    """A store whose images are better asked for early."""

    def fetch_ahead(self, name: str) -> None:
        """Begin to read an image that will be asked for soon."""
        ...


class ImageObjects:
    """Images below URLs.

    Attributes:
        folders: URLs to join an image name to, in the order they are tried.
        pattern: a URL with `{image_name}` that overrides them, or empty.
        max_bytes: larger images are refused.
    """

    def __init__(self, folders: tuple[str, ...], pattern: str, max_bytes: int) -> None:
        self.folders = folders
        self.pattern = pattern
        self.max_bytes = max_bytes
        self._ahead: OrderedDict[str, Future[bytes]] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None

    @property
    def by_url(self) -> bool:
        """Whether a URL helps to find an image."""
        return False

    def fetch_ahead(self, name: str) -> None:
        """Begin to read an image that will be asked for soon."""
        if name in self._ahead:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, "images")
        self._ahead[name] = self._pool.submit(self._fetch, name)
        while len(self._ahead) > _MOST_AHEAD:
            self._ahead.popitem(last=False)[1].cancel()

    def read(self, name: str, url: str = "") -> bytes:
        """The bytes of an image.

        Raises:
            ImageRejected: missing, unsafe-path or too-large.
            StorageError: the store does not answer.
        """
        begun = self._ahead.pop(name, None)
        return self._fetch(name) if begun is None else begun.result()

    def size(self, name: str, url: str = "") -> int | None:
        """Bytes of an image; None when it is not there."""
        try:
            check_name(name)
        except ImageRejected:
            return None
        for place in self._candidates(name):
            try:
                return size_of(place)
            except FileNotFoundError:
                continue
        return None

    def where(self) -> str:
        """The places that are tried, for a person."""
        return self.pattern or " or ".join(self.folders)

    def _fetch(self, name: str) -> bytes:
        check_name(name)
        for place in self._candidates(name):
            try:
                data = self._get(place)
            except FileNotFoundError:
                continue
            if len(data) > self.max_bytes:
                detail = f"{name}: at most {self.max_bytes} bytes are taken"
                raise ImageRejected(ImageDrop.TOO_LARGE, detail)
            return data
        raise ImageRejected(ImageDrop.MISSING, f"{name}: no such file")

    def _get(self, url: str) -> bytes:
        """At most one byte more than is taken."""
        try:
            with store_errors(url):
                return cast(bytes, filesystem(url).cat_file(url, start=0, end=self.max_bytes + 1))
        except StorageError:
            if size_of(url) == 0:  # of nothing there is no range
                return b""
            raise

    def _candidates(self, name: str) -> list[str]:
        if self.pattern:
            return [self.pattern.replace("{image_name}", _quoted(self.pattern, name))]
        return [f"{folder}/{_quoted(folder, name)}" for folder in self.folders]


def _quoted(url: str, name: str) -> str:
    """A name as it stands in a URL: on the web `?` and `#` would end the path."""
    return quote(name) if is_web(url) else name


def find_objects(
    root: str, shard_number: str, stem: str, *, pattern: str | None, max_bytes: int
) -> ImageObjects:
    """The places of one input's images: `<root>/<shard number>/`, `<root>/<stem>/`, `<root>/`.

    Args:
        root: URL of the image folder.
        shard_number: digits from the input's name, or empty.
        stem: the input's name without endings.
        pattern: `--image-path`, which overrides the layout; relative to the root.
        max_bytes: of one image.
    """
    if pattern is not None:
        fields = {"root": root, "shard": shard_number, "stem": stem}
        filled = pattern.format_map(fields | {"image_name": "{image_name}"})
        return ImageObjects((), filled if "://" in filled else f"{root}/{filled}", max_bytes)
    folders = [f"{root}/{name}" for name in dict.fromkeys((shard_number, stem)) if name]
    if not is_web(root):  # a web server does not say what is a folder
        folders = [folder for folder in folders if is_folder(folder)]
    return ImageObjects((*folders, root), "", max_bytes)
