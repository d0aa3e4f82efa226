"""Where to compute, and what the vision encoder is told by its path."""

import logging
import os
from typing import Any

import torch
import transformers

from flamingo.train.loop import Pixels
from mmdata.errors import UserError
from mmdata.usage.model_names import refuse_missing_folder


def quiet_loading() -> None:
    """No bars of transformers' own between the lines of ours, nor torch's advice to torchao, which
    transformers loads where it is installed."""
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()


def choose_device(name: str) -> torch.device:
    """`auto` is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: expected cpu, cuda or auto") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: no GPU is to be seen here")
    return device


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
    import open_clip

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


def pixels_of(image_processor: Any) -> Pixels:
    """Mean and deviation of the encoder's own preprocessing.

    Without one (no tower is loaded) no pixels will come, and what they are scaled by is not asked.
    """
    if image_processor is None:
        return Pixels(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    normalisation = image_processor.transforms[-1]
    mean, std = tuple(normalisation.mean), tuple(normalisation.std)
    return Pixels(mean=mean, std=std)
