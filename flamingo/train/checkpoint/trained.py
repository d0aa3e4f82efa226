"""A trained model as it lies on a disk: its weights, and what else it is built of.

Weights of ours are what training changed; the LM, the tower and the tokenizer lie elsewhere, and
their names stand beside the weights: in a checkpoint's options, or in an exported file's header.
Those of a file come from whoever made it, so that code which comes with a model is never run for
them.
"""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flamingo.models.family import Family, Saved, TrainableModel
from flamingo.models.registry import FAMILY_OPTION, FIRST_FAMILY, find_family
from flamingo.modules.checkpoint_files import TOKENIZER_FOLDER, WEIGHTS_FILE, read_header
from flamingo.train.checkpoint.checkpoint import FOLDER, find_checkpoint, read_state
from flamingo.train.checkpoint.retention import BEST, DRAFT_SUFFIX, read_pointer
from mmdata.errors import BadInputError, UserError

_BESIDE = "./"
"""What the path of a part begins with that lies in the folder of the exported file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained(Saved):
    """Where trained weights are, and what they belong to; code is never trusted of a file.

    Attributes:
        family: of the model.
        step: optimizer steps that it was trained for, where that is known.
    """

    family: str
    step: int | None = None

    def moved(self, **places: str | None) -> "Trained":
        """The trained model with its parts in other places, where these are given.

        Raises:
            UserError: a model of this family has no such part.
        """
        given = {name: place for name, place in places.items() if place is not None}
        for name in given:
            if name not in self.parts:
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag}: a model of the family {self.family} has no such part")
        return dataclasses.replace(self, parts={**self.parts, **given})

    def described(self) -> dict[str, Any]:
        """What an exported file says of them."""
        return {**self.parts, FAMILY_OPTION: self.family, "step": self.step}


def find_trained(path: str, *, step: int | None = None, best: bool = False) -> Trained | None:
    """What a run, a checkpoint or an export of ours is; None where it is none.

    Args:
        path: folder of a run (its latest checkpoint), of a checkpoint, of an export, or a file.
        step: of a run, the checkpoint of this step.
        best: of a run, the checkpoint with the lowest validation loss.

    Raises:
        UserError: the run has no such checkpoint.
    """
    folder = _chosen(path, step=step, best=best)
    if folder is None:
        return _exported(path)
    state = read_state(folder)
    family = _family_of(state.options)
    try:
        parts = {name: state.options[name] for name in family.parts}
    except KeyError as error:
        raise UserError(
            f"{folder}: its options do not say {error}; from another version"
        ) from error
    return Trained(
        weights=folder,
        tokenizer=os.path.join(folder, TOKENIZER_FOLDER),
        family=family.name,
        parts=parts,
        step=state.step,
        trust_remote_code=state.options.get("trust_remote_code", False),
    )


def weights_of(path: str) -> str:
    """The weights that a run, a checkpoint, an export or a file stands for."""
    trained = find_trained(path) if os.path.isdir(path) else None
    return path if trained is None else trained.weights


def build(trained: Trained, *, offline: bool) -> tuple[TrainableModel, Any]:
    """(model on the CPU, in eval mode; tokenizer)."""
    return find_family(trained.family).load(trained, offline=offline)


def _family_of(described: Mapping[str, Any]) -> Family[Any]:
    """The family that a run's options or a file's header name."""
    return find_family(described.get(FAMILY_OPTION, FIRST_FAMILY))


def _chosen(path: str, *, step: int | None, best: bool) -> str | None:
    """The folder of the checkpoint that is meant."""
    if step is None and not best:
        return None if os.path.isfile(path) else find_checkpoint(path)
    root = os.path.join(path, FOLDER)
    name = _best(path, root) if best else f"step-{step:08d}"
    listed = sorted(os.listdir(root)) if os.path.isdir(root) else []
    names = [one for one in listed if not one.endswith(DRAFT_SUFFIX)]
    # A second checkpoint of a step, which a run makes when the first is still named, has a number.
    of_step = [one for one in names if one == name or one.startswith(f"{name}.")]
    for one in reversed(of_step):
        if (found := find_checkpoint(os.path.join(root, one))) is not None:
            return found
    there = [one for one in names if one.startswith("step-")]
    raise UserError(f"{path}: has no checkpoint {name}; there are {', '.join(there) or 'none'}")


def _best(path: str, root: str) -> str:
    name = read_pointer(root, BEST)
    if name is None:
        raise UserError(
            f"{path}: names no best checkpoint; a run keeps one with --keep-best STREAM"
        )
    return name


def _exported(path: str) -> Trained | None:
    """What an exported file, or the folder around it, says of itself."""
    file = os.path.join(path, WEIGHTS_FILE) if os.path.isdir(path) else path
    if not os.path.isfile(file) or not file.endswith(".safetensors"):
        return None
    parts = read_header(file).parts
    if parts is None:
        return None
    family = _family_of(parts)
    if missing := sorted(set(family.parts) - set(parts)):
        raise BadInputError(f"{file}: its header does not say {missing}")
    folder = os.path.dirname(os.path.abspath(file))
    own = {name: _beside(folder, parts[name]) for name in family.parts}
    beside = os.path.join(folder, TOKENIZER_FOLDER)
    # Without its files it is where it was: an option's, or the language model's own.
    named = own.get("tokenizer_path") or own.get("lm_path")
    return Trained(
        weights=file,
        tokenizer=beside if os.path.isdir(beside) else str(named),
        family=family.name,
        parts=own,
        step=parts.get("step"),
    )


def _beside(folder: str, part: Any) -> Any:
    """A part that lies in the folder of the exported file, by its whole path."""
    if isinstance(part, str) and part.startswith(_BESIDE):
        return os.path.join(folder, part.removeprefix(_BESIDE))
    return part
