"""Images: recognised, verified, passed through unchanged or re-encoded once.

The names below load on first use: a configuration module that imports `mmdata.images.policy`
runs this file too, and must not pay for numpy, Pillow and simplejpeg (0.16 s together).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdata.images.facts import ImageFacts, ImageRejected
    from mmdata.images.policy import ImagePolicy
    from mmdata.images.prepare import PreparedImage, prepare_image
    from mmdata.images.verify import verify_image

__all__ = [
    "ImageFacts",
    "ImagePolicy",
    "ImageRejected",
    "PreparedImage",
    "prepare_image",
    "verify_image",
]

_HOME = {
    "ImageFacts": "facts",
    "ImagePolicy": "policy",
    "ImageRejected": "facts",
    "PreparedImage": "prepare",
    "prepare_image": "prepare",
    "verify_image": "verify",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
