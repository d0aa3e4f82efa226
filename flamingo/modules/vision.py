"""The frozen open_clip tower: patch tokens of images, before or after its last LayerNorm.

The released OpenFlamingo models were trained on tokens *before* `ln_post`; open_clip >= 2.23
returns them after it. `vision_tokens="pre_norm"` gives back what they were trained on (bit-equal
to the old versions), `"post_norm"` what OpenFlamingo gives when installed today.

Only open_clip's own `VisionTransformer` without attention pooling can do both; others are
refused by name instead of being read at a guessed place.

Dimensions: N images, V patch tokens, D width of the tower.
"""

import logging
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import huggingface_hub
import open_clip
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.serialization import config as serialization_config

from flamingo.modules.absent_tower import AbsentTower, vision_config
from flamingo.modules.checkpoint_files import why_not_weights
from flamingo.modules.compute import in_stored_type
from flamingo.modules.meta import parameters_on_meta
from flamingo.modules.tower_block import use_tower_blocks
from mmdata.errors import UserError
from mmdata.training_view.model_names import refuse_missing_folder

logger = logging.getLogger(__name__)

_SERIALIZATION: Any = serialization_config  # its `patch` is put there at run time

VisionTokens = Literal["pre_norm", "post_norm"]


def prepare_tower(tower: nn.Module, vision_tokens: VisionTokens, name: str = "") -> nn.Module:
    """Make a tower return its patch tokens; freeze it.

    Args:
        tower: of open_clip.
        vision_tokens: before or behind the tower's last LayerNorm.
        name: of the model, for the message.

    Raises:
        UserError: it is of a kind that has no patch tokens.
    """
    if vision_tokens not in ("pre_norm", "post_norm"):
        raise UserError(f"vision_tokens: expected 'pre_norm' or 'post_norm', got {vision_tokens!r}")
    if isinstance(tower, AbsentTower):
        return tower
    if not isinstance(tower, VisionTransformer):
        kind = type(tower).__name__
    elif tower.attn_pool is not None:
        kind = "VisionTransformer with attention pooling"
    elif tower.pool_type == "none":
        kind = "VisionTransformer with pool_type 'none'"
    else:
        tower.output_tokens = True
        tower.final_ln_after_pool = vision_tokens == "pre_norm"
        use_tower_blocks(tower)
        return cast(nn.Module, tower.requires_grad_(requires_grad=False).eval())
    raise refusal(name, kind)


def refusal(name: str, kind: str) -> UserError:
    """The error for a tower whose patch tokens cannot be had in the form that is needed."""
    return UserError(
        f"vision tower{name and ' '}{name}: expected open_clip's plain VisionTransformer "
        f"(ViT-L-14, ViT-H-14…), got {kind}"
    )


def configured_width(name: str) -> int | None:
    """Width of a tower before it is built; None where only the hub knows it.

    Raises:
        UserError: its config says that it is of a kind that has no patch tokens.
    """
    if name.startswith("hf-hub:"):
        return None
    unknown = "expected a model of open_clip (open_clip.list_models()), got another name"
    vision = vision_config(name, refusal=unknown)
    kind = vision.get("timm_model_name")
    if isinstance(vision.get("layers"), list):
        kind = "a ResNet"
    if kind is not None:
        raise refusal(name, kind)
    return int(vision["width"])


def tower_width(tower: nn.Module) -> int:
    """Width D of the patch tokens."""
    if isinstance(tower, AbsentTower):
        return tower.width
    return int(cast(VisionTransformer, tower).conv1.out_channels)


def train_tower(tower: nn.Module) -> None:
    """Lets the tower train, but for what its patch tokens do not come from.

    That would have no gradient, and ranks wait for the gradient of everything that trains.
    """
    if isinstance(tower, AbsentTower):
        return
    tower.requires_grad_(requires_grad=True)
    # Tokens are a view of what the tower computed, which FSDP's hook on them may be lost from.
    tower.register_forward_hook(lambda _module, _args, out: (out[0], out[1].clone()))
    unused = [cast(VisionTransformer, tower).proj]
    if cast(VisionTransformer, tower).final_ln_after_pool:
        unused += cast(VisionTransformer, tower).ln_post.parameters()
    for parameter in unused:
        if parameter is not None:
            parameter.requires_grad_(requires_grad=False)


def encode_images(tower: nn.Module, images: Tensor, chunk: int) -> Tensor:
    """Patch tokens (N, V, D) of images; a gradient goes into them only where the tower trains.

    Args:
        tower: of `prepare_tower`.
        images: (N, 3, H, W), normalised floats.
        chunk: images at a time.

    Raises:
        UserError: the images are of another dtype or shape than the tower takes.
    """
    if isinstance(tower, AbsentTower):
        tower(images)
    weight = cast(VisionTransformer, tower).conv1.weight
    expected = (3, *cast(VisionTransformer, tower).image_size)
    if not images.is_floating_point():
        raise UserError(
            f"images: expected normalised floating-point pixels, got {images.dtype}; "
            "run the image_processor first"
        )
    if images.dim() != 4 or tuple(images.shape[1:]) != expected:
        raise UserError(
            f"images: expected (N, {', '.join(map(str, expected))}), got {tuple(images.shape)}"
        )
    with_grad = torch.is_grad_enabled() and weight.requires_grad
    with torch.set_grad_enabled(with_grad), in_stored_type(tower, images.device):
        parts = [tower(part.to(weight.dtype))[1] for part in images.split(chunk)]
    # Spread over ranks, it was gathered for the first chunk and kept for all of them: how many
    # there are differs by rank, and ranks have to gather together.
    release = getattr(tower, "reshard", None)
    if release is not None:
        release()
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def blank_tokens(
    tower: nn.Module, features: Tensor | None = None, device: torch.device | None = None
) -> Tensor:
    """(1, V, D) patch tokens of a blank image, for a rank that has none.

    They come from the tower, as other ranks run it at the same time; where those have features,
    `features` (0, V, D) says so and the tower is left alone. Where none is loaded, they are zeros.
    All is on `device`, or where the tower is.
    """
    if features is not None:
        return features.new_zeros(1, *features.shape[1:])
    if isinstance(tower, AbsentTower):
        return torch.zeros(1, 1, tower.width, device=device)
    weight = cast(VisionTransformer, tower).conv1.weight
    size = cast(VisionTransformer, tower).image_size
    # Not `weight.new_zeros`: that of a weight spread over ranks is spread as well.
    image = torch.zeros(1, 3, *size, dtype=weight.dtype, device=device or weight.device)
    return encode_images(tower, image, 1)


def load_tower(
    name: str,
    pretrained: str | None,
    *,
    vision_tokens: VisionTokens = "pre_norm",
    cache_dir: str | None = None,
    offline: bool = False,
) -> tuple[nn.Module, Callable[..., Tensor]]:
    """(tower, image processor) of an open_clip model, with the activation it was trained with.

    Args:
        name: of the model, as open_clip has it; `hf-hub:` and `local-dir:` included.
        pretrained: open_clip's tag of its weights, or a file.
        vision_tokens: before or behind the tower's last LayerNorm.
        cache_dir: of downloads.
        offline: whether only what is on this machine is used.

    Raises:
        UserError: there is no such model, or its weights cannot be read.
    """
    options: dict[str, Any] = {}
    schema = name.startswith(("hf-hub:", "local-dir:"))
    known = open_clip.get_pretrained_cfg(name, pretrained) if pretrained and not schema else {}
    if known:
        # open_clip >= 2.29 no longer switches ViT-L-14 to QuickGELU for OpenAI's weights.
        options["force_quick_gelu"] = bool(known.get("quick_gelu", False))
    if offline:
        pretrained, found = _without_network(name, pretrained, known, cache_dir)
        options |= found
    try:
        with hub_offline(offline=offline):
            model, _, image_processor = open_clip.create_model_and_transforms(
                name, pretrained=pretrained, cache_dir=cache_dir, weights_only=True, **options
            )
    except pickle.UnpicklingError as error:
        raise UserError(f"vision tower {name} / {pretrained}: {why_not_weights(error)}") from error
    except (RuntimeError, OSError, ValueError) as error:
        hint = " (offline: only what is on this machine is used)" if offline else ""
        raise UserError(f"vision tower {name} / {pretrained}{hint}: {error}") from error
    return prepare_tower(model.visual, vision_tokens, name), image_processor


def map_tower(
    name: str, pretrained: str | None, **options: Any
) -> tuple[nn.Module, Callable[..., Tensor], dict[str, Tensor]]:
    """(tower, image processor, weights): parameters on meta, the weights mapped from their file.

    open_clip finds the file and knows its kinds; it is only kept from filling the model, and from
    moving it to the CPU, where it is but for what has no memory. Arguments and errors are those of
    `load_tower`.
    """
    found: dict[str, Tensor] = {}
    load = open_clip.factory.load_checkpoint

    def keep(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        model.load_state_dict = lambda state, **_: found.update(state)  # type: ignore[method-assign]
        try:
            try:
                with _SERIALIZATION.patch({"load.mmap": True}):
                    load(model, *args, **kwargs)
            except RuntimeError as error:
                if "mmap" not in str(error):
                    raise
                logger.warning("vision tower %s: weights in the format before torch 1.6", name)
                load(model, *args, **kwargs)
        finally:
            del model.load_state_dict
        return {}

    with (
        parameters_on_meta(),
        _open_clip_with(
            load_checkpoint=keep, _set_model_device_and_precision=lambda *_, **__: None
        ),
    ):
        tower, image_processor = load_tower(name, pretrained, **options)
    prefix = "visual."
    weights = {n.removeprefix(prefix): x for n, x in found.items() if n.startswith(prefix)}
    return tower, image_processor, weights


def empty_tower(
    name: str, *, vision_tokens: VisionTokens = "pre_norm", offline: bool = False
) -> tuple[nn.Module, Callable[..., Tensor]]:
    """(tower, image processor) with parameters on the meta device that nothing will fill.

    Its config is enough, weights need not be there.
    """
    with (
        parameters_on_meta(),
        _open_clip_with(_set_model_device_and_precision=lambda *_, **__: None),
        hub_offline(offline=offline),
        _without_warnings(),
    ):
        try:
            model, _, image_processor = open_clip.create_model_and_transforms(
                name, pretrained=None, load_weights=False
            )
        except (RuntimeError, OSError, ValueError) as error:
            raise UserError(f"vision tower {name}: {error}") from error
    return prepare_tower(model.visual, vision_tokens, name), image_processor


@contextmanager
def _open_clip_with(**functions: Callable[..., Any]) -> Iterator[None]:
    """Other functions in open_clip's factory for a while."""
    before = {name: getattr(open_clip.factory, name) for name in functions}
    for name, function in functions.items():
        setattr(open_clip.factory, name, function)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(open_clip.factory, name, function)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keeps open_clip, which logs as root, from missing weights where none are wanted."""

    def is_error(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    root = logging.getLogger()
    root.addFilter(is_error)
    try:
        yield
    finally:
        root.removeFilter(is_error)


@contextmanager
def hub_offline(*, offline: bool) -> Iterator[None]:
    """Keeps huggingface_hub, and what is built on it, off the network for a while."""
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = before or offline
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before


def _without_network(
    name: str, pretrained: str | None, known: dict[str, Any], cache_dir: str | None
) -> tuple[str | None, dict[str, Any]]:
    """Weights that open_clip would fetch by plain URL, which no offline switch stops."""
    if not known or known.get("hf_hub") or not known.get("url"):
        return pretrained, {}
    folder = Path(cache_dir) if cache_dir else Path.home() / ".cache" / "clip"
    path = folder / os.path.basename(known["url"])
    if not path.is_file():
        raise UserError(f"vision tower {name} / {pretrained}: offline, and {path} does not exist")
    names = {"mean": "image_mean", "std": "image_std", "interpolation": "image_interpolation"}
    return str(path), {ours: known[key] for key, ours in names.items() if key in known}


def tower_name(path: str) -> str:
    """open_clip's name for a vision encoder; a folder gets open_clip's prefix for folders.

    Raises:
        UserError: it is a path at which nothing is.
    """
    refuse_missing_folder(f"--vision-encoder-path {path}", path)
    return f"local-dir:{os.path.abspath(path)}" if os.path.isdir(path) else path


def configured_image_size(name: str) -> int:
    """Pixels of the square that a vision encoder sees, from its config alone.

    Raises:
        UserError: open_clip does not know it, or it takes no squares.
    """
    try:
        config = open_clip.get_model_config(name)
    except (OSError, ValueError) as error:
        raise UserError(f"--vision-encoder-path {name}: {error}") from error
    if config is None:
        raise UserError(f"--vision-encoder-path {name}: is neither a folder nor open_clip's")
    size = config["vision_cfg"].get("image_size", 224)
    if isinstance(size, list | tuple):
        if len(set(size)) != 1:
            raise UserError(f"--vision-encoder-path {name}: takes {size} pixels, not a square")
        size = size[0]
    return int(size)
