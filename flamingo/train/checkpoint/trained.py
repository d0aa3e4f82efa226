"""A trained model as it lies on a disk: its weights, and what else it is built of.

Weights of ours are what training changed; the LM, the tower and the tokenizer lie elsewhere, and
their names stand beside the weights: in a checkpoint's options, or in an exported file's header.
Those of a file come from whoever made it, so that code which comes with a model is never run for
them.
"""

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from flamingo.models.flamingo.build import create_model_and_transforms
from flamingo.models.flamingo.checkpoint import frozen_parts
from flamingo.models.flamingo.model import Flamingo
from flamingo.modules.adapter_settings import AdapterSettings
from flamingo.modules.checkpoint_files import TOKENIZER_FOLDER, WEIGHTS_FILE, read_header
from flamingo.modules.vision import tower_name
from flamingo.train.checkpoint.checkpoint import FOLDER, find_checkpoint, read_state
from flamingo.train.checkpoint.retention import BEST, DRAFT_SUFFIX, read_pointer
from mmdata.errors import BadInputError, UserError

#: Options that say what a model is built of; an exported file's header holds these.
PARTS = (
    "lm_path",
    "tokenizer_path",
    "vision_encoder_path",
    "vision_encoder_pretrained",
    "cross_attn_every_n_layers",
    "vision_tokens",
)
_BESIDE = "./"
"""What the path of an LM begins with that lies in the folder of the exported file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """Where trained weights are, and what they belong to.

    Attributes:
        weights: a checkpoint's folder or a weight file.
        tokenizer: folder or name on the hub.
        step: optimizer steps that it was trained for, where that is known.
        trust_remote_code: of the run that it comes from; never for a file.
    """

    weights: str
    tokenizer: str
    lm_path: str
    tokenizer_path: str | None
    vision_encoder_path: str
    vision_encoder_pretrained: str | None
    cross_attn_every_n_layers: int
    vision_tokens: str
    step: int | None = None
    trust_remote_code: bool = False

    @property
    def tower(self) -> str:
        """The vision encoder, as open_clip calls it."""
        return tower_name(self.vision_encoder_path)

    def moved(self, **places: str | None) -> "Trained":
        """The same with other places of its parts, where they are given."""
        given: dict[str, Any] = {name: place for name, place in places.items() if place is not None}
        return dataclasses.replace(self, **given)

    def parts(self) -> dict[str, Any]:
        """What an exported file says of them."""
        return {name: getattr(self, name) for name in PARTS} | {"step": self.step}


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
    try:
        parts = {name: state.options[name] for name in PARTS}
    except KeyError as error:
        raise UserError(
            f"{folder}: its options do not say {error}; from another version"
        ) from error
    return Trained(
        weights=folder,
        tokenizer=os.path.join(folder, TOKENIZER_FOLDER),
        step=state.step,
        trust_remote_code=state.options.get("trust_remote_code", False),
        **parts,
    )


def weights_of(path: str) -> str:
    """The weights that a run, a checkpoint, an export or a file stands for."""
    trained = find_trained(path) if os.path.isdir(path) else None
    return path if trained is None else trained.weights


def build(trained: Trained, *, offline: bool) -> tuple[Flamingo, Any, Any]:
    """(model, image processor, tokenizer) on the CPU, in eval mode."""
    tower = trained.tower
    adapters = AdapterSettings.from_record(read_header(trained.weights).record)
    model, image_processor, tokenizer = create_model_and_transforms(
        tower,
        None if tower.startswith("local-dir:") else trained.vision_encoder_pretrained,
        trained.lm_path,
        trained.tokenizer,
        cross_attn_every_n_layers=trained.cross_attn_every_n_layers,
        vision_tokens=trained.vision_tokens,
        init_from=trained.weights,
        adapters=adapters,
        freeze=frozen_parts(read_header(trained.weights).shapes),
        offline=offline,
        trust_remote_code=trained.trust_remote_code,
    )
    return model.eval(), image_processor, tokenizer


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
    if not set(PARTS) <= set(parts):
        raise BadInputError(f"{file}: its header does not say {sorted(set(PARTS) - set(parts))}")
    folder = os.path.dirname(os.path.abspath(file))
    lm_path = str(parts["lm_path"])
    if lm_path.startswith(_BESIDE):
        lm_path = os.path.join(folder, lm_path.removeprefix(_BESIDE))
    beside = os.path.join(folder, TOKENIZER_FOLDER)
    tokenizer = beside if os.path.isdir(beside) else parts["tokenizer_path"] or lm_path
    return Trained(
        weights=file,
        tokenizer=tokenizer,
        step=parts.get("step"),
        **{name: parts[name] for name in PARTS} | {"lm_path": lm_path},
    )
