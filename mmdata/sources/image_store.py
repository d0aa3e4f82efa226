"""What `--images` may be, told by looking: a folder, tars, img2dataset's output, parquet files.

A plain folder is the common case and stays as it is (`image_folder.py`); where archives lie beside
folders, all of it is read. The others are indexed once in every process that reads them and kept
for its life: about 5 us and 70 bytes an image (10 million: 50 s and 0.7 GB a worker), so for such
sizes give each worker more to do.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar

from mmdata.errors import BadInputError, UserError
from mmdata.sources.folder_names import names_of
from mmdata.sources.image_folder import ImageFolder, find_folders
from mmdata.sources.image_objects import ImageObjects, find_objects
from mmdata.sources.img2dataset_files import Img2datasetFiles
from mmdata.sources.names import PICTURE_ENDINGS, NamedImages, Near
from mmdata.sources.parquet_images import ParquetImages, is_of_images
from mmdata.sources.tar_images import TarImages
from mmdata.storage.files import is_folder, list_names
from mmdata.storage.paths import expand_paths
from mmdata.storage.urls import absolute, check_url, is_url, is_web

StoreKind = Literal["folder", "tars", "img2dataset-files", "parquet", "folder-and-archives"]
Value = TypeVar("Value")
#: Endings of files that lie among archives, so that none of thousands is asked what it is.
_BESIDE_ARCHIVES = frozenset((".tar", ".parquet", ".json", ".jsonl", ".txt", ".csv", ".idx"))
_SHARD_FOLDER = re.compile(r"\d{5,}")
_SHARD_STATS = re.compile(r"\d{5,}_stats\.json")


@dataclass(frozen=True, slots=True)
class ImageSource:
    """What `--images` was found to be; small and picklable.

    Attributes:
        kind: see `StoreKind`.
        root: the folder, for kinds that are one.
        files: the tars, parquet files (or both) or img2dataset's folders.
        allowed: folders that links may lead into, besides the root.
    """

    kind: StoreKind
    root: str = ""
    files: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()


def find_images(spec: str, allowed: tuple[str, ...], flag: str = "--images") -> ImageSource:
    """Find out what `--images` names.

    Args:
        spec: a folder, tars or parquet files; a path, a glob, a {000..041} range or a URL.
        allowed: folders that links may lead into, besides the one that is named.
        flag: for messages.

    Raises:
        UserError: it is nothing, or of no kind that can be used.
    """
    if is_url(spec):
        check_url(spec)
        if is_web(spec) and not spec.endswith((".tar", ".parquet")):
            return ImageSource("folder", absolute(spec))  # a web server cannot be looked into
    if is_folder(spec):
        return _folder(absolute(spec), allowed)
    expansion = expand_paths([spec], (".tar", ".parquet"))
    if expansion.problems:
        what = "; ".join(f"{path}: {problem}" for path, problem in expansion.problems[:5])
        raise UserError(f"{flag} {spec}: no such folder or file ({what})")
    files = tuple(absolute(path) for path in expansion.files)
    endings = {os.path.splitext(path)[1].lower() for path in files}
    if endings == {".tar"}:
        return ImageSource("tars", files=files)
    if endings == {".parquet"}:
        return ImageSource("parquet", files=files)
    raise UserError(
        f"{flag} {spec}: expected a folder, .tar files or .parquet files, got "
        f"{' and '.join(sorted(ending or 'no ending' for ending in endings))}"
    )


def _folder(root: str, allowed: tuple[str, ...]) -> ImageSource:
    """What a folder holds, by the names at its top."""
    names = sorted(name for name in list_names(root) if not name.startswith("."))
    tars = tuple(os.path.join(root, name) for name in names if name.endswith(".tar"))
    shards = tuple(name for name in names if _SHARD_FOLDER.fullmatch(name))
    stats = any(_SHARD_STATS.fullmatch(name) for name in names)
    if not tars and shards and (stats or f"{shards[0]}.parquet" in names):
        return ImageSource("img2dataset-files", root, shards, allowed)
    tables = tuple(os.path.join(root, name) for name in names if name.endswith(".parquet"))
    if not tars and not tables:
        return ImageSource("folder", root, (), allowed)
    if not any(_is_beside(root, name) for name in names):
        return ImageSource("tars" if tars else "parquet", root, tars or tables)
    files = (*tars, *(path for path in tables if is_of_images(path)))
    return ImageSource("folder-and-archives" if files else "folder", root, files, allowed)


def _is_beside(root: str, name: str) -> bool:
    """Whether a name beside archives is a picture, or a folder that may hold some."""
    ending = os.path.splitext(name)[1].lower()
    if ending in PICTURE_ENDINGS:
        return True
    return ending not in _BESIDE_ARCHIVES and is_folder(os.path.join(root, name))


def check_images(source: ImageSource, max_bytes: int) -> dict[str, str]:
    """What is wrong with each file of a source: path -> problem.

    Args:
        source: whose tars and parquet files are opened and indexed.
        max_bytes: that an image may have.
    """
    problems = {}
    if source.kind == "img2dataset-files":
        return {}
    for path in source.files:
        try:
            _open_archives((path,), max_bytes)
        except BadInputError as error:
            problems[path] = str(error).removeprefix(f"{path}: ")
    return problems


def _open_archives(paths: tuple[str, ...], max_bytes: int) -> list[NamedImages]:
    """Tars and parquet files, each kind as one store.

    Raises:
        BadInputError: a file is damaged.
    """
    tars = tuple(path for path in paths if path.endswith(".tar"))
    tables = tuple(path for path in paths if not path.endswith(".tar"))
    found: list[NamedImages] = [TarImages(tars, max_bytes)] if tars else []
    return [*found, ParquetImages(tables, max_bytes)] if tables else found


def forget_images() -> None:
    """Look anew at what is kept for the life of the process: a new run may find other images."""
    open_images.cache_clear()
    names_of.cache_clear()


@lru_cache(maxsize=1)
def open_images(source: ImageSource, max_bytes: int) -> NamedImages:
    """The store of a source that is no plain folder; indexed once a process.

    Args:
        source: of any kind but `folder`.
        max_bytes: that an image may have; larger ones are rejected when they are read.

    Raises:
        BadInputError: a file is damaged.
    """
    if source.kind == "tars":
        images = TarImages(source.files, max_bytes)
        if not len(images):  # one tar may be: img2dataset leaves it where all downloads failed
            names = ", ".join(os.path.basename(path) for path in source.files[:3])
            raise BadInputError(f"{source.root or names}: there is no image in its tars")
        return images
    if source.kind == "parquet":
        return ParquetImages(source.files, max_bytes)
    if source.kind == "folder":
        raise ValueError(f"{source.kind} is opened for each input")
    inner = find_in_folders(source, "", "", named=True, pattern=None, max_bytes=max_bytes)
    if source.kind == "folder-and-archives":
        return SeveralStores((inner, *_open_archives(source.files, max_bytes)))
    return Img2datasetFiles(source.root, source.files, inner)


class SeveralStores(NamedImages):
    """A folder and the archives in it: of one name the first that has it, near names of all."""

    def __init__(self, stores: tuple[NamedImages, ...]) -> None:
        self._stores = stores

    @property
    def by_url(self) -> bool:
        """Whether images of one of them can be found by URL."""
        return any(store.by_url for store in self._stores)

    def take(self, name: str) -> bytes | None:
        """The image of exactly this name."""
        return _first(store.take(name) for store in self._stores)

    def length(self, name: str) -> int | None:
        """Bytes of the image of exactly this name."""
        return _first(store.length(name) for store in self._stores)

    def take_url(self, url: str) -> bytes | None:
        """The image that came from a URL."""
        return _first(store.take_url(url) for store in self._stores if store.by_url)

    def length_url(self, url: str) -> int | None:
        """Bytes of the image that came from a URL."""
        return _first(store.length_url(url) for store in self._stores if store.by_url)

    def near(self, name: str) -> list[Near]:
        """The names that one may mean: a file and a member of one name are one."""
        return [near for store in self._stores for near in store.near(name)]

    def nowhere(self) -> str:
        """What is said of an image that is not there."""
        return "; ".join(dict.fromkeys(store.nowhere() for store in self._stores))

    def where(self) -> str:
        """What is looked in, for a person."""
        return " and ".join(store.where() for store in self._stores)


def _first(values: Iterable[Value | None]) -> Value | None:
    return next((value for value in values if value is not None), None)


class ShardImages(SeveralStores):
    """The images of one numbered shard in archives that hold those of many, as MMC4's do.

    `7/a.jpg` or `<stem>/a.jpg` is shard 7's `a.jpg` before `a.jpg` itself is; what lies in a
    folder with another number is another shard's. By URL all images are found.
    """

    def __init__(self, store: NamedImages, number: str, stem: str) -> None:
        super().__init__((store,))
        self._store = store
        self._number = number
        self._folders = tuple(dict.fromkeys(filter(None, (number, stem))))

    def take(self, name: str) -> bytes | None:
        """The image of this name in the shard's folders, else outside."""
        return _first(self._store.take(one) for one in self._named(name))

    def length(self, name: str) -> int | None:
        """Bytes of the image of this name."""
        return _first(self._store.length(one) for one in self._named(name))

    def near(self, name: str) -> list[Near]:
        """The names that one may mean, in the first of the shard's folders that has any."""
        for one in self._named(name):
            if found := [near for near in self._store.near(one) if self._is_own(near.name, name)]:
                return found
        return []

    def _named(self, name: str) -> list[str]:
        return [*(f"{folder}/{name}" for folder in self._folders), name]

    def _is_own(self, found: str, name: str) -> bool:
        above = found.split("/")[: -1 - name.count("/")]
        if not self._number or not above or not above[-1].isdecimal():
            return True
        return int(above[-1]) == int(self._number)


def find_in_folders(
    source: ImageSource, number: str, stem: str, *, named: bool, pattern: str | None, max_bytes: int
) -> ImageFolder | ImageObjects:
    """The places of one input's images, in a source that is a folder.

    Args:
        source: whose root is a folder, here or in a store.
        number: digits from the input's name (or its member's), or empty.
        stem: the input's name without endings.
        named: whether the input's own name holds the number.
        pattern: of --image-path, which overrides the layout; None for the usual places.
        max_bytes: that an image may have.
    """
    if is_url(source.root):
        return find_objects(source.root, number, stem, pattern=pattern, max_bytes=max_bytes)
    return find_folders(
        source.root,
        number,
        stem,
        named=named,
        pattern=pattern,
        allow_links_to=source.allowed,
        max_bytes=max_bytes,
    )


__all__ = [
    "ImageFolder",
    "ImageSource",
    "NamedImages",
    "ShardImages",
    "check_images",
    "find_images",
    "forget_images",
    "open_images",
]
