"""Patch tokens that `mmdata features` wrote, read in place of pictures.

Files are mapped and read by row: what a batch takes is half a megabyte an image (ViT-L/14), several
times the JPEG, but no decoding and no tower. A file is matched with its shard by name and by the
tar's size.
"""

import os
import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmdata.errors import BadInputError, UserError
from mmdata.shards.features import FeatureFile, features_path, read_features_header
from mmdata.storage.files import size_of


class FeatureStore:
    """The features of a stream's shards, opened as they are needed; safe in any thread.

    Args:
        folder: that `mmdata features` wrote to.
    """

    def __init__(self, folder: str) -> None:
        if not os.path.isdir(folder):
            raise UserError(f"features {folder}: no such folder; mmdata features makes it")
        self._folder = folder
        self._lock = threading.Lock()
        self._open: dict[str, tuple[FeatureFile, NDArray[np.int16]]] = {}
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
            BadInputError: the features are not those of that shard.
            UserError: they are of another tower than the model's.
        """
        file, tokens = self._file(source)
        try:
            row = file.first_of[key] + image
            usable = file.usable[row]
        except (KeyError, IndexError) as error:
            raise BadInputError(f"{file.path}: nothing of sample {key} of {source}") from error
        if not usable:
            return None
        # A copy: the map is read-only, and goes when the file is closed.
        return torch.from_numpy(tokens[row].copy()).view(torch.bfloat16)

    def _file(self, source: str) -> tuple[FeatureFile, NDArray[np.int16]]:
        with self._lock:
            found = self._open.get(source)
            if found is None:
                found = self._open[source] = self._map(source)
            return found

    def _map(self, source: str) -> tuple[FeatureFile, NDArray[np.int16]]:
        file = read_features_header(features_path(self._folder, source))
        if file.shard_bytes != size_of(source):
            raise BadInputError(
                f"{file.path}: made for a shard of {file.shard_bytes} bytes, {source} has "
                f"{size_of(source)}; run mmdata features again"
            )
        self._check_tower(file)
        if not file.shape[0]:
            return file, np.zeros(file.shape, np.int16)
        tokens = np.memmap(file.path, np.int16, "r", offset=file.tokens_at, shape=file.shape)
        return file, tokens

    def _check_tower(self, file: FeatureFile) -> None:
        if self._tower is not None and file.tower != self._tower:
            raise UserError(
                f"{file.path}: made with another vision tower, its tokens or its preprocessing "
                f"({file.tower}) than the model has ({self._tower}); run mmdata features anew"
            )
