"""img2dataset's `files` output: folders 00000/, 00001/… of images with a JSON beside each.

URLs come from the `00000.parquet` that img2dataset leaves beside each folder, and where that is
gone from the JSON files (one open an image: 15 us instead of 1). Reading goes through `ImageFolder`
and so keeps to its rules on links and devices.
"""

import os
from collections.abc import Iterator

import numpy as np

from mmdata.errors import BadInputError, words_of
from mmdata.sources.name_index import IndexedImages
from mmdata.sources.names import NamedImages
from mmdata.sources.tar_images import IMAGE_SUFFIXES, url_of
from mmdata.storage.files import exists, list_names, open_file, read_bytes
from mmdata.wording import plural


class Img2datasetFiles(IndexedImages):
    """Images of img2dataset's folders, by URL or name.

    Args:
        root: the output folder of img2dataset.
        folders: names of its shards' folders.
        inner: reads a name relative to the root.

    Raises:
        BadInputError: a table of URLs is damaged.
    """

    def __init__(self, root: str, folders: tuple[str, ...], inner: NamedImages) -> None:
        self._root = root
        self._inner = inner
        super().__init__("img2dataset's folders")
        names: list[bytes] = []
        for folder in folders:
            urls = dict(_urls(root, folder))
            for image in sorted(list_names(os.path.join(root, folder))):
                stem, suffix = os.path.splitext(image)
                if suffix.lower() not in IMAGE_SUFFIXES:
                    continue
                name = f"{folder}/{image}"
                self._index.add(name, len(names))
                if stem in urls:
                    self._index.add_url(urls[stem], len(names))
                names.append(os.fsencode(name))
        self._index.finish()
        self._names = np.array(names, "S")  # fixed width: as many bytes as the longest

    def take(self, name: str) -> bytes | None:
        """The file of this name."""
        return self._inner.take(name) if self._index.exact(name) else None

    def length(self, name: str) -> int | None:
        """Bytes of the file of this name."""
        return self._inner.length(name) if self._index.exact(name) else None

    def take_url(self, url: str) -> bytes | None:
        """The file that came from a URL."""
        name = self._name_of(url)
        return None if name is None else self._inner.take(name)

    def length_url(self, url: str) -> int | None:
        """Bytes of the file that came from a URL."""
        name = self._name_of(url)
        return None if name is None else self._inner.length(name)

    def where(self) -> str:
        """What is looked in, for a person."""
        by = "name or URL" if self.by_url else "name"
        return f"{self._root} ({plural(len(self._names), 'file')} of img2dataset, by {by})"

    def _name_of(self, url: str) -> str | None:
        row = self._index.of_url(url)
        return None if row is None else os.fsdecode(bytes(self._names[row]))


def _urls(root: str, folder: str) -> Iterator[tuple[str, str]]:
    """(key, URL) of a shard's images."""
    table = os.path.join(root, folder + ".parquet")
    if exists(table):
        yield from _table_urls(table)
        return
    for name in list_names(os.path.join(root, folder)):
        stem, suffix = os.path.splitext(name)
        if suffix != ".json":
            continue
        if url := url_of(read_bytes(os.path.join(root, folder, name))):
            yield stem, url


def _table_urls(path: str) -> Iterator[tuple[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_file(path) as file:
            table = pq.read_table(file, columns=["key", "url"], pre_buffer=False)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise BadInputError(
            f"{path}: damaged table of URLs: {words_of(error)}; fetch it again"
        ) from error
    for key, url in zip(*(table.column(name).to_pylist() for name in ("key", "url")), strict=True):
        if isinstance(key, str) and isinstance(url, str):
            yield key, url
