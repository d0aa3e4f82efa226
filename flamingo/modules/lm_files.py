"""The weights of a transformers LM as they lie on the disk, by the names of a given model.

The files are mapped, not read: a row costs memory when somebody copies it, so that a rank can
take its rows of a matrix that it never holds. Safetensors and zipped pickles can be mapped, in one
file or in several behind an index. transformers renames what older files call otherwise
(GPT-NeoX's `embed_out`), and so does this; where it would compute new tensors out of several
(fused experts), or a file is in the format before torch 1.6, nothing can be taken row by row, and
the LM is read whole, which is said.
"""

import json
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.utils.hub import cached_file

from flamingo.modules.checkpoint_files import read_weights
from mmdata.errors import BadInputError

logger = logging.getLogger(__name__)

_FILES = ("model.safetensors", "pytorch_model.bin")
"""In the order in which transformers takes them; each stands for its index as well."""


def find_weight_files(lm_path: str, **hub: Any) -> list[Path]:
    """The weight files of an LM on the hub or in a folder; none where it has none of the usual.

    Args:
        lm_path: name or folder.
        hub: `cache_dir`, `local_files_only`.
    """

    def find(name: str) -> Path | None:
        found = cached_file(lm_path, name, _raise_exceptions_for_missing_entries=False, **hub)
        return None if found is None else Path(found)

    for name in _FILES:
        if (file := find(name)) is not None:
            return [file]
        if (index := find(f"{name}.index.json")) is not None:
            names = sorted(set(_weight_map(index).values()))
            files = [find(one) for one in names]
            if None in files:
                missing = names[files.index(None)]
                raise BadInputError(f"language model {lm_path}: {index} names {missing}: not there")
            return [file for file in files if file is not None]
    return []


def _weight_map(index: Path) -> dict[str, str]:
    try:
        return cast(dict[str, str], json.loads(index.read_text())["weight_map"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{index}: expected a weight_map in it: {error}") from error


def stored_weights(
    lm: nn.Module, files: list[Path], read_whole: Callable[[], nn.Module]
) -> dict[str, Tensor]:
    """The weights that belong into an LM (its parameters on the meta device), by its own names.

    Args:
        lm: as transformers makes it.
        files: of its weights.
        read_whole: the same LM with its weights, where they cannot be taken row by row.
    """
    transforms = get_model_conversion_mapping(lm)  # type: ignore[arg-type]
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    expected = lm.state_dict()
    prefix: Any = lm.base_model_prefix
    found: dict[str, Tensor] = {}
    for file in files:
        if file.suffix != ".safetensors" and not zipfile.is_zipfile(file):
            logger.warning("%s: in the format before torch 1.6, every rank reads it whole", file)
        for name, value in read_weights(file).items():
            ours, converted = rename_source_key(name, renamings, converters, prefix, expected)
            if converted is not None and ours in expected:
                return _whole(lm, "its parameters are made of several in the file", read_whole)
            if ours not in expected and name in expected:
                ours = name
            if ours in expected:
                found[ours] = value
    if not files:
        return _whole(lm, "neither safetensors nor a pytorch_model.bin", read_whole)
    return found


def _whole(lm: nn.Module, reason: str, read: Callable[[], nn.Module]) -> dict[str, Tensor]:
    logger.warning(
        "%s: %s: read whole into the memory of every rank first", type(lm).__name__, reason
    )
    return dict(read().state_dict())
