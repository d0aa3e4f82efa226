"""Weight files: their names and shapes before anything is loaded, and their contents.

Read are safetensors, pickles with `weights_only=True` (a pickle may run any code otherwise), and
folders with an `identity.json`, whose tensors are sharded (`sharded_files.py`) or one safetensors
file. A safetensors file of ours carries the same record in its header, and an exported one the
parts (`PARTS_KEY`) that its model was built of.
"""

import json
import os
import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flamingo.modules.sharded_files import is_sharded, read_sharded_weights, sharded_shapes
from mmdata.errors import BadInputError
from mmdata.storage.atomic import give_usual_modes

RECORD_KEY = "mmdata.flamingo"
#: In the record: the family of the model.
FAMILY_KEY = "model_family"
PARTS_KEY = "mmdata.parts"
RECORD_FILE = "identity.json"
#: As earlier versions called it.
_FORMER_RECORD_FILE = "fit.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FOLDER = "tokenizer"
#: In the folder of an export: the language model, where adapters were merged into it.
LM_FOLDER = "lm"
MAX_HEADER_BYTES = 100 << 20  # the limit of the safetensors library itself

_FOREIGN_GLOBAL = re.compile(r"GLOBAL (\S+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointHeader:
    """What a checkpoint says about itself without its weights being read."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    record: dict[str, Any] | None
    """What the model told of itself (`TrainableModel.identity`), in checkpoints of ours."""
    parts: dict[str, Any] | None = None
    """LM, tokenizer and tower that an exported file was built of, by option."""


def read_header(path: str | os.PathLike[str]) -> CheckpointHeader:
    """Names, shapes and record of a .safetensors file, a .pt file, or a folder of ours."""
    path = Path(path)
    if path.is_dir():
        return _folder_header(path)
    if path.suffix == ".safetensors":
        entries = _safetensors_header(path)
        metadata = entries.pop("__metadata__", {})
        record, parts = (
            json.loads(metadata[key]) if key in metadata else None
            for key in (RECORD_KEY, PARTS_KEY)
        )
        shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
        return CheckpointHeader(path=path, shapes=shapes, record=record, parts=parts)
    shapes = {name: tuple(value.shape) for name, value in read_weights(path).items()}
    return CheckpointHeader(path=path, shapes=shapes, record=None)


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The flat weights of a file or folder, on the CPU; a .pt file is mapped, not read."""
    path = Path(path)
    if path.is_dir():
        if is_sharded(path):
            return read_sharded_weights(path)
        path = path / WEIGHTS_FILE
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = _load_pickle(path)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise BadInputError(f"checkpoint {path}: {why_not_weights(error)}") from error
    if isinstance(loaded, Mapping):
        loaded = loaded.get("model_state_dict", loaded)
    if not isinstance(loaded, Mapping) or not all(isinstance(x, Tensor) for x in loaded.values()):
        raise BadInputError(
            f"checkpoint {path}: expected a dictionary of tensors, or one under "
            f"'model_state_dict', got {type(loaded).__name__}"
        )
    return dict(loaded)


def why_not_weights(error: Exception) -> str:
    """What a person is told of a weight file that was not read; torch's own words say how to let
    the code in a pickle run."""
    text = str(error)
    if match := _FOREIGN_GLOBAL.search(text):
        return (
            f"refused: reading this pickle would run code ({match[1]}); "
            "ask its author for safetensors or for tensors alone"
        )
    text = text.rpartition("WeightsUnpickler error: ")[2].strip().partition("\n")[0]
    if isinstance(error, pickle.UnpicklingError):
        return f"cannot be read as weights: not a pickle of tensors alone ({text}); refused"
    return f"cannot be read as weights: {text}"


def write_weights(
    path: str | os.PathLike[str],
    weights: Mapping[str, Tensor],
    record: Mapping[str, Any] | None,
    parts: Mapping[str, Any] | None = None,
) -> None:
    """Safetensors with the record in the header, under a temporary name until complete."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    metadata = {"format": "pt"}
    for key, value in ((RECORD_KEY, record), (PARTS_KEY, parts)):
        if value is not None:
            metadata[key] = json.dumps(value, sort_keys=True)
    # safetensors refuses tensors that share memory, such as a tied head under two names
    own = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    try:
        save_file(own, temporary, metadata=metadata)
        give_usual_modes(str(temporary))  # safetensors lets its owner alone read it
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_record(
    folder: str | os.PathLike[str], record: Mapping[str, Any], tokenizer: Any = None
) -> None:
    """`identity.json`, and the tokenizer's files beside it: what a resume needs to check itself."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder / TOKENIZER_FOLDER)
    (folder / RECORD_FILE).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def _folder_header(folder: Path) -> CheckpointHeader:
    shapes: dict[str, tuple[int, ...]] = {}
    if is_sharded(folder):
        shapes = sharded_shapes(folder)
    elif (folder / WEIGHTS_FILE).is_file():
        shapes = read_header(folder / WEIGHTS_FILE).shapes
    path = folder / RECORD_FILE
    try:
        record = json.loads((path if path.exists() else folder / _FORMER_RECORD_FILE).read_text())
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"checkpoint {folder}: expected its {RECORD_FILE}, got {error}"
        ) from error
    return CheckpointHeader(path=folder, shapes=shapes, record=record)


def _safetensors_header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > MAX_HEADER_BYTES:
                raise ValueError(f"a header of {size} bytes")
            return cast(dict[str, Any], json.loads(file.read(size)))
    except (OSError, ValueError, struct.error) as error:
        raise BadInputError(f"checkpoint {path}: not a safetensors file: {error}") from error


def _load_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # the format before torch 1.6 cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True)
