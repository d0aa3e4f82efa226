"""Versions of what decides the bytes of a shard, and of the project itself."""

from importlib import metadata

from mmdata.errors import MissingExtraError

#: msgspec writes the numbers, pyarrow the samples table.
_PACKAGES = ("msgspec", "numpy", "pillow", "pyarrow", "scipy", "simplejpeg")


def codec_versions() -> dict[str, str]:
    """Versions of the libraries whose change could change a shard's bytes."""
    from PIL import features

    versions = {name: metadata.version(name) for name in _PACKAGES}
    for library in ("libjpeg_turbo", "webp", "zlib", "libtiff", "littlecms2", "avif"):
        check = features.version(library)
        versions[library] = check or "none"
    return versions


def clip_versions() -> dict[str, str]:
    """Versions of the libraries whose change could change a similarity.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    names = ("torch", "torchvision", "open_clip_torch", "ftfy")
    try:
        return {name: metadata.version(name) for name in names}
    except metadata.PackageNotFoundError as error:
        raise MissingExtraError("clip", str(error.name), "--clip-model") from error
