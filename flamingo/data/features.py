"""Patch tokens that `mmdata features` wrote, read in place of pictures.

Files are read by row: what a batch takes is half a megabyte an image (ViT-L/14), several times the
JPEG, but no decoding and no tower. A file is matched with its shard by name and by the tar's size.
Kept open are so many; of each, its keys and where they begin are in memory (some 100 bytes a
sample).
"""

import os
import threading
from collections import OrderedDict

import torch
from torch import Tensor

from mmdata.errors import BadInputError, UserError
from mmdata.shards.features import BYTES_PER_VALUE, FeatureFile, features_path, read_features_header
from mmdata.storage.files import size_of
from mmdata.storage.pread import PreadFile

#: Files that are open at once: with those of shards, below the usual limit of 1,024.
_MOST_OPEN = 256


class FeatureStore:
    """The features of a stream's shards, opened as they are needed; safe in any thread.

    Args:
        folder: that `mmdata features` wrote to.
        most_open: files that are kept open.
    """

    def __init__(self, folder: str, *, most_open: int = _MOST_OPEN) -> None:
        if not os.path.isdir(folder):
            raise UserError(f"features {folder}: no such folder; mmdata features makes it")
        self._folder, self._most_open = folder, most_open
        self._lock = threading.Lock()
        self._open: OrderedDict[str, tuple[FeatureFile, PreadFile]] = OrderedDict()
        self._tower: str | None = None

    def expect(self, tower: str) -> None:
        """From now on, refuse features of another tower than this (`TowerSpec.identity`)."""
        self._tower = tower
        for file, _ in self._open.values():
            self._check_tower(file)

    def read(self, source: str, key: str, image: int) -> Tensor | None:
        """(V, D) bf16 of an image; None for one that could not be decoded.

        Args:
            source: the image's shard.
            key: of its sample.
            image: its index there.

        Raises:
            BadInputError: the features are not those of that shard, or cannot be read.
            UserError: they are of another tower than the model's.
        """
        file, held = self._file(source)
        try:
            row = file.first_of[key] + image
            usable = file.usable[row]
        except (KeyError, IndexError) as error:
            raise BadInputError(f"{file.path}: nothing of sample {key} of {source}") from error
        if not usable:
            return None
        _, num_tokens, width = file.shape
        size = num_tokens * width * BYTES_PER_VALUE
        try:
            data = held.read(file.tokens_at + row * size, size)
        except OSError as error:
            raise BadInputError(f"{file.path}: {error.strerror or error}") from error
        if len(data) < size:
            raise BadInputError(f"{file.path}: was cut short while it was read; make it again")
        return torch.frombuffer(bytearray(data), dtype=torch.bfloat16).view(num_tokens, width)

    def _file(self, source: str) -> tuple[FeatureFile, PreadFile]:
        with self._lock:
            if source not in self._open:
                self._open[source] = self._opened(source)
                if len(self._open) > self._most_open:
                    self._open.popitem(last=False)  # closed when no thread reads it any more
            self._open.move_to_end(source)
            return self._open[source]

    def _opened(self, source: str) -> tuple[FeatureFile, PreadFile]:
        file = read_features_header(features_path(self._folder, source))
        if file.shard_bytes != size_of(source):
            raise BadInputError(
                f"{file.path}: made for a shard of {file.shard_bytes} bytes, {source} has "
                f"{size_of(source)}; run mmdata features again"
            )
        self._check_tower(file)
        try:
            return file, PreadFile(file.path)
        except OSError as error:
            raise BadInputError(f"{file.path}: {error.strerror or error}") from error

    def _check_tower(self, file: FeatureFile) -> None:
        if self._tower is not None and file.tower != self._tower:
            raise UserError(
                f"{file.path}: made with another vision tower, its tokens or its preprocessing "
                f"({file.tower}) than the model has ({self._tower}); run mmdata features anew"
            )
