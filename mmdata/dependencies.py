"""What a command needs of other packages: that they are there, and not of a version that fails.

`REFUSED` is the one table of versions that are known not to work. Standard library only.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from mmdata.errors import MissingExtraError, UserError


@dataclass(frozen=True, kw_only=True)
class RefusedVersions:
    """Versions of a package with which something is known not to work."""

    package: str
    """Name of the package, as the package index has it."""
    reason: str
    remedy: str
    """A requirement for pip."""
    since: tuple[int, ...] = ()
    """The first of them; () for all from the beginning."""
    before: tuple[int, ...] = ()
    """The first that works again; () where none does."""
    extra: str = ""
    """Where only what needs this extra fails; "" for everything."""

    def contains(self, version: str) -> bool:
        """Whether a version is one of them; of one that cannot be read nothing is said."""
        release = release_of(version)
        if not release:
            return False
        return release >= self.since and (not self.before or release < self.before)


#: A row is added when a version was seen to fail; what was never tried is for the bounds.
REFUSED: tuple[RefusedVersions, ...] = (
    RefusedVersions(
        package="transformers",
        before=(5,),
        reason="it has no conversion_mapping, by which checkpoints are read",
        remedy="transformers>=5.11,<5.25",
    ),
    RefusedVersions(
        package="torchao",
        before=(0, 18),
        extra="lora",
        reason="it has no 4-bit tensors where qlora takes them from",
        remedy="torchao>=0.18,<0.19",
    ),
)

#: Module to the package that brings it, where the names differ.
_PACKAGES = {"open_clip": "open_clip_torch", "PIL": "pillow", "pynvml": "nvidia-ml-py"}
#: What every command needs; the rest is asked for by `require`.
_BASE = ("numpy", "pyarrow", "msgspec", "ray", "PIL")


def require(extra: str, modules: Iterable[str], what: str) -> None:
    """See that the modules of an extra are there, in a version that is not known to fail.

    Args:
        extra: that brings them.
        modules: by their import names.
        what: needs them: a command or an option.

    Raises:
        MissingExtraError: one is not installed.
        UserError: one is of a version that is known not to work.
    """
    for module in modules:
        if find_spec(module) is None:
            raise MissingExtraError(extra, module, what)
        refuse_version(_PACKAGES.get(module, module), what, extra=extra)


def refuse_base_versions(what: str) -> None:
    """See that nothing of the base installation is of a version that is known not to work.

    Raises:
        UserError: one is.
    """
    for module in _BASE:
        refuse_version(_PACKAGES.get(module, module), what)


def refuse_version(package: str, what: str, *, extra: str = "") -> None:
    """Raise UserError where the installed version of a package is in the table."""
    rows = [row for row in REFUSED if row.package == package and row.extra in ("", extra)]
    if not rows:
        return
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:  # a module without metadata tells no version
        return
    for row in rows:
        if row.contains(version):
            raise UserError(
                f"{what} does not work with {package} {version}: {row.reason}: "
                f"pip install '{row.remedy}'"
            )


def release_of(version: str) -> tuple[int, ...]:
    """The numbers of a version: `2.13.0+cpu` and `2.13rc1` are (2, 13, 0) and (2, 13)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
