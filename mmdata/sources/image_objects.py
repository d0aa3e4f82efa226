"""Images one by one in an object store or on a web server, as `--images s3://bucket/images`.

A read there takes 20 to 100 ms, whatever the image's size, so the images of the next documents are
fetched ahead by 16 threads; decoding stays in the caller's. What is fetched ahead and never asked
for is let go of. Trouble of the store is not the image's: only "not found" makes it missing, all
else fails the unit.

A name that is not there costs one more request, for the keys that begin with its stem: nothing is
listed as a whole, so pictures that lie deeper are not found, and of a web server, which lists
nothing, only the spellings of a name itself.
"""

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast
from urllib.parse import quote

from mmdata.errors import StorageError
from mmdata.images import ImageRejected
from mmdata.sources.names import (
    NamedImages,
    Near,
    StoredImage,
    canonical,
    shown,
    split_ending,
    unicode_forms,
)
from mmdata.storage.files import is_folder, size_of
from mmdata.storage.urls import WRITABLE, filesystem, is_web, protocol_of, store_errors
from schemas.reasons import ImageDrop

_THREADS = 16
_MOST_AHEAD = 256


class ImageObjects(NamedImages):
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
        self._ahead: OrderedDict[str, Future[StoredImage]] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None

    def fetch_ahead(self, name: str) -> None:
        """Begin to read an image that will be asked for soon."""
        if name in self._ahead:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, "images")
        self._ahead[name] = self._pool.submit(super().read, name)
        while len(self._ahead) > _MOST_AHEAD:
            self._ahead.popitem(last=False)[1].cancel()

    def read(self, name: str, url: str = "") -> StoredImage:
        """The image that a record's name stands for.

        Raises:
            ImageRejected: missing, ambiguous-name, unsafe-path or too-large.
            StorageError: the store does not answer.
        """
        begun = self._ahead.pop(name, None)
        return super().read(name) if begun is None else begun.result()

    def take(self, name: str) -> bytes | None:
        """The object of exactly this name."""
        for place in self._candidates(name):
            try:
                data = self._get(place)
            except FileNotFoundError:
                continue
            if len(data) > self.max_bytes:
                detail = f"{shown(name)}: at most {self.max_bytes} bytes are taken"
                raise ImageRejected(ImageDrop.TOO_LARGE, detail)
            return data
        return None

    def length(self, name: str) -> int | None:
        """Bytes of the object of exactly this name."""
        for place in self._candidates(name):
            try:
                return size_of(place)
            except FileNotFoundError:
                continue
        return None

    def near(self, name: str) -> list[Near]:
        """The names at the same place that one may mean."""
        for folder in self.folders or self._folder_of_pattern():
            if found := _like(folder, canonical(name)):
                return found
        return []

    def where(self) -> str:
        """The places that are tried, for a person."""
        return self.pattern or " or ".join(self.folders)

    def _get(self, url: str) -> bytes:
        """At most one byte more than is taken."""
        try:
            with store_errors(url):
                return cast(bytes, filesystem(url).cat_file(url, start=0, end=self.max_bytes + 1))
        except StorageError:
            if size_of(url) == 0:  # of nothing there is no range
                return b""
            raise

    def _folder_of_pattern(self) -> tuple[str, ...]:
        folder, slash, rest = self.pattern.partition("/{image_name}")
        return (folder,) if slash and not rest else ()

    def _candidates(self, name: str) -> list[str]:
        if self.pattern:
            return [self.pattern.replace("{image_name}", _quoted(self.pattern, name))]
        return [f"{folder}/{_quoted(folder, name)}" for folder in self.folders]


def _like(folder: str, name: str) -> list[Near]:
    """The objects of a folder that a (canonical) name may mean, relative to the folder."""
    if protocol_of(folder) not in WRITABLE:
        return []
    stem, ending = split_ending(name)
    found: dict[str, int] = {}
    for form in unicode_forms(name[: len(name) - len(ending)]):
        above, slash, last = form.rpartition("/")
        place = above + slash
        if not ending:  # what is no picture's ending may be written in other letters
            last = last.rpartition(".")[0] or last
        for key in _keys(f"{folder}/{place}".rstrip("/"), last + "."):
            other_stem, other_ending = split_ending(canonical(place + key))
            if other_stem == stem:
                found[place + key] = int(other_ending != ending)
    return [Near(other, steps) for other, steps in found.items()]


def _keys(folder: str, beginning: str) -> list[str]:
    """Names of the objects right in a folder that begin so."""
    with store_errors(folder):
        store = filesystem(folder)
        inside = str(store._strip_protocol(folder)) + "/"
        names = [str(key).removeprefix(inside) for key in store.find(folder, prefix=beginning)]
    return [name for name in names if "/" not in name and name.startswith(beginning)]


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
