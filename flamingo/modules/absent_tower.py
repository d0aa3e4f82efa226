"""Which vision tower, told without loading it, and what stands where none is loaded.

A run whose streams all bring precomputed features needs to know the tower (its features must be of
this one, its width decides the resampler's) and never computes with it: 1.2 GB of fp32 weights for
ViT-L/14 that need not be read, nor lie on the GPU.

A tower is known by where its weights come from: open_clip's name and tag, or the sha256 of a file
or of a folder's files. That takes a second a gigabyte where there is a file, and nothing for a tag.
The price: the same weights by a tag and from a file count as two towers.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import open_clip
from torch import Tensor, nn

from mmdata.errors import UserError
from mmdata.wording import plural

_LOCAL = "local-dir:"
_CONFIG_NAME = "open_clip_config.json"
_WEIGHTS = (".safetensors", ".bin", ".pth")
_DIGITS = 16


class AbsentTower(nn.Module):
    """Stands where a vision tower would; it has no parameters, and computes nothing.

    Attributes:
        name: of the tower.
        width: D of its patch tokens.
        grid_size: rows and columns of patches of an image, as open_clip names it.
    """

    def __init__(self, name: str, width: int, grid_size: tuple[int, int]) -> None:
        super().__init__()
        self.name, self.width, self.grid_size = name, width, grid_size

    def forward(self, images: Tensor) -> Tensor:
        """Refuse pictures.

        Raises:
            UserError: always.
        """
        raise UserError(
            f"vision tower {self.name}: was not loaded, since every stream brings its features; "
            f"expected none of {plural(len(images), 'image')}"
        )


def absent_tower(name: str, *_: object, **__: object) -> tuple[AbsentTower, None]:
    """What stands for a tower of open_clip, from its config alone, in place of `load_tower`.

    Raises:
        UserError: there is no such config.
    """
    config = vision_config(name)
    size, patch = _pair(config.get("image_size", 224)), _pair(config["patch_size"])
    grid = (size[0] // patch[0], size[1] // patch[1])
    return AbsentTower(name, int(config["width"]), grid), None


def tower_identity(name: str, pretrained: str | None, vision_tokens: str) -> str:
    """Equal when two towers give the same tokens of the same pixels: weights, kind and size.

    Args:
        name: of open_clip, or `local-dir:` and a folder.
        pretrained: tag of open_clip, or a file; not looked at where the name brings weights.
        vision_tokens: `pre_norm` or `post_norm`.

    Raises:
        UserError: there are no weights, which would be others in each process.
    """
    size = vision_config(name).get("image_size", 224)
    shown = size if isinstance(size, int) else "x".join(map(str, size))
    return f"{_weights(name, pretrained)} {vision_tokens} {shown}"


def _weights(name: str, pretrained: str | None) -> str:
    if name.startswith(_LOCAL):
        folder = Path(name.removeprefix(_LOCAL))
        files = sorted(path for path in folder.iterdir() if path.suffix in _WEIGHTS)
        if not files:
            raise UserError(f"vision tower {folder}: holds no weights ({', '.join(_WEIGHTS)})")
        return f"sha256-{_digest([folder / _CONFIG_NAME, *files])}"
    if ":" in name:
        return name
    if pretrained is None:
        raise UserError(
            f"vision tower {name}: expected its weights (a tag of open_clip, or a file), got none"
        )
    if os.path.isfile(pretrained):
        return f"{name}/sha256-{_digest([Path(pretrained)])}"
    return f"{name}/{pretrained}"


def _digest(files: list[Path]) -> str:
    """The digest of files' contents, in their order."""
    whole = hashlib.sha256()
    try:
        for path in files:
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise UserError(f"vision tower {error.filename}: {error.strerror}") from error
    return whole.hexdigest()[:_DIGITS]


def vision_config(
    name: str, *, refusal: str = "is neither a folder nor open_clip's"
) -> dict[str, Any]:
    """What open_clip's config of a model says of its vision tower.

    Args:
        name: of the model, as open_clip has it; `hf-hub:` and `local-dir:` included.
        refusal: what to say of a name that open_clip does not know.

    Raises:
        UserError: there is no such config.
    """
    try:
        config = open_clip.get_model_config(name.replace("/", "-") if ":" not in name else name)
    except (OSError, ValueError) as error:
        raise UserError(f"vision tower {name}: {error}") from error
    if config is None:
        raise UserError(f"vision tower {name}: {refusal}")
    vision: dict[str, Any] = config["vision_cfg"]
    return vision


def _pair(size: int | list[int]) -> tuple[int, int]:
    """(height, width) of what may be one number for both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])
