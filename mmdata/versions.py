"""Versions of what decides the bytes of a shard, and of the project itself."""

from importlib import metadata

import mmdata

#: msgspec writes the numbers, pyarrow the samples table.
_PACKAGES = ("msgspec", "numpy", "pillow", "pyarrow", "scipy", "simplejpeg")


def codec_versions() -> dict[str, str]:
    """Versions of the libraries whose change could change a shard's bytes."""
    from PIL import features

    versions = {name: metadata.version(name) for name in _PACKAGES}
    for library in ("libjpeg_turbo", "webp", "zlib", "libtiff", "littlecms2"):
        check = features.version(library)
        versions[library] = check or "none"
    return versions


def project_version() -> str:
    """The version of this project."""
    return mmdata.__version__
