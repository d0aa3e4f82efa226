"""Versions of what decides the bytes of a shard, and of the project itself."""

from importlib import metadata

import mmdata


def codec_versions() -> dict[str, str]:
    """Versions of the libraries whose change could change a shard's bytes."""
    from PIL import features

    versions = {name: metadata.version(name) for name in ("pillow", "simplejpeg", "numpy", "scipy")}
    for library in ("libjpeg_turbo", "webp", "zlib", "libtiff", "littlecms2"):
        check = features.version(library)
        versions[library] = check or "none"
    return versions


def project_version() -> str:
    """The version of this project."""
    return mmdata.__version__
