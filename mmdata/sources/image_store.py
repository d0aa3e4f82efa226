"""What `--images` may be, told by looking: a folder, tars, img2dataset's output, parquet files.

A plain folder is the common case and stays as it is (`image_folder.py`). The others are indexed
once in every process that reads them and kept for its life: about 5 us and 50 bytes an image
(10 million: 50 s and 0.5 GB a worker), so for such sizes give each worker more to do.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

from mmdata.errors import BadInputError, UserError
from mmdata.sources.image_folder import ImageFolder, find_folders
from mmdata.sources.image_objects import ImageObjects, find_objects
from mmdata.sources.img2dataset_files import Img2datasetFiles
from mmdata.sources.parquet_images import ParquetImages
from mmdata.sources.tar_images import TarImages
from mmdata.storage.files import is_folder, list_names
from mmdata.storage.paths import expand_paths
from mmdata.storage.urls import absolute, check_url, is_url, is_web

StoreKind = Literal["folder", "tars", "img2dataset-files", "parquet"]
_SHARD_FOLDER = re.compile(r"\d{5,}")
_SHARD_STATS = re.compile(r"\d{5,}_stats\.json")


class ImageStore(Protocol):
    """Where the images of one input are."""

    def read(self, name: str, url: str = "") -> bytes:
        """The bytes of an image; raises ImageRejected."""
        ...

    def size(self, name: str, url: str = "") -> int | None:
        """Bytes of an image; None when it is not there."""
        ...

    def where(self) -> str:
        """What is looked in, for a person."""
        ...

    @property
    def by_url(self) -> bool:
        """Whether a URL helps to find an image."""
        ...


@dataclass(frozen=True, slots=True)
class ImageSource:
    """What `--images` was found to be; small and picklable.

    Attributes:
        kind: see `StoreKind`.
        root: the folder, for kinds that are one.
        files: the tars, parquet files or img2dataset's folders.
        allowed: folders that links may lead into, besides the root.
    """

    kind: StoreKind
    root: str = ""
    files: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()


def find_images(spec: str, allowed: tuple[str, ...], flag: str = "--images") -> ImageSource:
    """Look at what `--images` names, or another flag.

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
    if tars:
        return ImageSource("tars", root, tars)
    shards = tuple(name for name in names if _SHARD_FOLDER.fullmatch(name))
    stats = any(_SHARD_STATS.fullmatch(name) for name in names)
    if shards and (stats or f"{shards[0]}.parquet" in names):
        return ImageSource("img2dataset-files", root, shards, allowed)
    tables = tuple(os.path.join(root, name) for name in names if name.endswith(".parquet"))
    if tables and not any(is_folder(os.path.join(root, name)) for name in names):
        return ImageSource("parquet", root, tables)
    return ImageSource("folder", root, (), allowed)


def check_images(source: ImageSource, max_bytes: int) -> dict[str, str]:
    """What is wrong with each file of a source: path -> problem."""
    problems = {}
    one_file: Callable[[str], object] | None = {
        "tars": lambda path: TarImages((path,), max_bytes),
        "parquet": lambda path: ParquetImages((path,), max_bytes),
    }.get(source.kind)
    if one_file is None:
        return {}
    for path in source.files:
        try:
            one_file(path)
        except BadInputError as error:
            problems[path] = str(error).removeprefix(f"{path}: ")
    return problems


@lru_cache(maxsize=1)
def open_images(source: ImageSource, max_bytes: int) -> ImageStore:
    """The store of a source that is no plain folder; indexed once a process.

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
    if source.kind != "img2dataset-files":
        raise ValueError(f"{source.kind} is opened for each input")
    inner = find_in_folders(source, "", "", named=True, pattern=None, max_bytes=max_bytes)
    return Img2datasetFiles(source.root, source.files, inner)


def find_in_folders(
    source: ImageSource, number: str, stem: str, *, named: bool, pattern: str | None, max_bytes: int
) -> ImageFolder | ImageObjects:
    """The places of one input's images, in a source that is a folder; see `find_folders`."""
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


__all__ = ["ImageFolder", "ImageSource", "ImageStore", "check_images", "find_images", "open_images"]
