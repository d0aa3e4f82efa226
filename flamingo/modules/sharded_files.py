"""Tensors in a torch.distributed.checkpoint folder: what is in it, and its weights in one process.

Such a folder has one file a rank and an index of them, and reads on any number of ranks. The index
is a pickle, which torch unpickles with everything that a pickle may do; here it is read by a
reader that knows the index's own types and refuses all else. The tensors are read by torch with
`weights_only=True`; no other objects are kept in a folder of ours.
"""

import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from mmdata.errors import BadInputError

TENSORS_FOLDER = "tensors"
INDEX_FILE = ".metadata"
#: What the names of the model's weights start with; optimizer and random state have others.
WEIGHTS_PREFIX = "model."

_INDEX_TYPES = {
    "torch.distributed.checkpoint.metadata": {
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size"} | {name for name, value in vars(torch).items() if type(value) is torch.dtype},
    # Of the path that the folder had; in pathlib._local with Python 3.13.
    "pathlib": {"PosixPath", "WindowsPath"},
    "pathlib._local": {"PosixPath", "WindowsPath"},
}


class _IndexUnpickler(pickle.Unpickler):
    """Knows the types of an index; any other name is an error before anything is called."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in _INDEX_TYPES.get(module, ()):
            raise pickle.UnpicklingError(f"names {module}.{name}, which no index holds")
        return super().find_class(module, name)


class TensorReader(FileSystemReader):
    """torch's reader of a folder, with an index that cannot run code.

    Raises:
        BadInputError: there is no index, or it is not one; from `read_metadata`.
    """

    def read_metadata(self, *_args: Any, **_options: Any) -> Metadata:
        path = Path(self.path) / INDEX_FILE
        try:
            with path.open("rb") as file:
                index = _IndexUnpickler(file).load()
            if not isinstance(index, Metadata):
                raise pickle.UnpicklingError(f"holds a {type(index).__name__}")
            for entry in (index.storage_data or {}).values():
                if os.path.basename(entry.relative_path) != entry.relative_path:
                    raise pickle.UnpicklingError(f"names {entry.relative_path}, outside its folder")
        except (OSError, EOFError, pickle.UnpicklingError, AttributeError, ValueError) as error:
            raise BadInputError(f"checkpoint {path}: not an index of tensors: {error}") from error
        index.storage_meta = index.storage_meta or StorageMeta()
        index.storage_meta.load_id = self.load_id
        return index


def is_sharded(folder: str | os.PathLike[str]) -> bool:
    """Whether the checkpoint is one of sharded tensors."""
    return (Path(folder) / TENSORS_FOLDER / INDEX_FILE).is_file()


def tensors_in(folder: str | os.PathLike[str]) -> dict[str, TensorStorageMetadata]:
    """Every tensor of a checkpoint by name, with its size and dtype; nothing is read of it."""
    reader = TensorReader(Path(folder) / TENSORS_FOLDER)
    found = reader.read_metadata().state_dict_metadata
    return {name: one for name, one in found.items() if isinstance(one, TensorStorageMetadata)}


def sharded_shapes(folder: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of a checkpoint."""
    return {
        name.removeprefix(WEIGHTS_PREFIX): tuple(one.size)
        for name, one in tensors_in(folder).items()
        if name.startswith(WEIGHTS_PREFIX)
    }


def read_sharded_weights(folder: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The weights of a checkpoint, whole, on the CPU; optimizer state is not read."""
    wanted = {
        name: torch.empty(one.size, dtype=one.properties.dtype)
        for name, one in tensors_in(folder).items()
        if name.startswith(WEIGHTS_PREFIX)
    }
    fill_tensors(folder, wanted)
    return {name.removeprefix(WEIGHTS_PREFIX): value for name, value in wanted.items()}


def fill_tensors(folder: str | os.PathLike[str], wanted: dict[str, Tensor]) -> None:
    """Read into the given tensors, plain or sharded; a rank reads what its shards need.

    No rank waits for another, so a single rank may ask. Every name has to be in the checkpoint,
    with the same shape.

    Raises:
        BadInputError: a file is missing or damaged.
    """
    reader = TensorReader(Path(folder) / TENSORS_FOLDER)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load(dict(wanted), storage_reader=reader, no_dist=True)
    except CheckpointException as error:
        raise BadInputError(
            f"checkpoint {folder}: cannot be read: {first_failure(error)}"
        ) from error


def first_failure(error: CheckpointException) -> str:
    """What went wrong on the first rank that failed, in one line."""
    rank, (cause, _) = min(error.failures.items())
    reason = str(cause).partition("\n")[0] or type(cause).__name__
    return f"rank {rank}: {reason}" if len(error.failures) > 1 or rank else reason
