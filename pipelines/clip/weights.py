"""Which CLIP it is: its names as open_clip knows them, its network, a hash of what was loaded."""

import hashlib
import logging
import os
from typing import Any

import numpy as np

from mmdata.errors import UserError

_LOCAL = "local-dir:"
_HUB = "hf-hub:"
#: What open_clip raises for a model or weights that cannot be had: many kinds, one meaning.
_LOAD_ERRORS = (RuntimeError, OSError, ValueError, KeyError, TypeError, AttributeError, ImportError)


def similarity_source(model: str, pretrained: str | None, weights_sha256: str) -> str:
    """`clip:<model>/<pretrained>`: a tag by its name, weights from files by their content.

    No path is in it: the same weights at another place give the same shards.
    """
    if model.startswith(_LOCAL):
        model = os.path.basename(model)
    if pretrained is None or os.path.isabs(pretrained):
        pretrained = f"sha256-{weights_sha256[:12]}"
    return f"clip:{model}/{pretrained}"


def checked_names(model: str, pretrained: str | None) -> tuple[str, str | None]:
    """The names with paths made absolute, so that they mean the same in every process.

    Raises:
        UserError: they do not go together.
    """
    import open_clip

    if model.startswith((_LOCAL, _HUB)):
        if pretrained is not None:
            raise UserError(f"--clip-model {model} brings its weights: leave out --clip-pretrained")
        local = model.startswith(_LOCAL)
        return (_LOCAL + os.path.abspath(model.removeprefix(_LOCAL)) if local else model), None
    given, model = model, model.replace("/", "-")
    if model not in open_clip.list_models():
        raise UserError(
            f"--clip-model {given}: expected a model of open_clip (ViT-L-14, ViT-B-32, ...), "
            "local-dir:PATH or hf-hub:NAME"
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained and open_clip.get_pretrained_cfg(model, pretrained):
        return model, pretrained
    if pretrained and os.path.isfile(pretrained):
        return model, os.path.abspath(pretrained)
    known = ", ".join(tags[:8]) + (", ..." if len(tags) > 8 else "")
    raise UserError(
        f"--clip-pretrained {pretrained or ''}: expected a file, or a tag of {model}"
        + (f" ({known})" if known else "")
    )


def load_network(model: str, pretrained: str | None) -> Any:
    """The network in float32 on the CPU, with the activation that its weights were trained with."""
    import open_clip

    options: dict[str, Any] = {}
    if known := open_clip.get_pretrained_cfg(model, pretrained) if pretrained else None:
        # open_clip >= 2.29 no longer switches ViT-L-14 to QuickGELU for OpenAI's weights.
        options["force_quick_gelu"] = bool(known.get("quick_gelu", False))
    level = logging.root.manager.disable
    logging.disable()  # open_clip tells the root logger what is raised below
    try:
        return open_clip.create_model(
            model, pretrained=pretrained, require_pretrained=True, weights_only=True, **options
        )
    except _LOAD_ERRORS as error:
        named = f"{model} / {pretrained}" if pretrained else model
        raise UserError(f"CLIP {named}: {' '.join(str(error).split())[:500]}") from error
    finally:
        logging.disable(level)


def sha256_of_weights(network: Any) -> str:
    """A hash of all weights by name, the same for any file format that they came in."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        array = np.ascontiguousarray(value.detach().cpu().numpy())
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()
