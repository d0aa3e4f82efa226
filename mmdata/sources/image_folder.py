"""Where the images of an input lie, and reading them without leaving the image folder.

A name in the data is data: `names.py` says what it may mean, and that it leads nowhere out; here
links that lead out and device files are refused as `unsafe-path`. The root itself may be a link.
The common case costs one open with O_NOFOLLOW; only a link is resolved and checked against the
folders that are allowed. A folder is listed when a name is not there, and not before.
"""

import errno
import os
import stat
from dataclasses import dataclass
from typing import NoReturn

from mmdata.errors import ReadFaultError
from mmdata.images import ImageRejected
from mmdata.sources.folder_names import MOST_FILES, names_of
from mmdata.sources.names import NamedImages, Near, StoredImage, shown
from schemas.reasons import ImageDrop

_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
#: What a file of its own can be: not ours to read, no file. All else (EIO, ESTALE, EMFILE, …) is
#: trouble of a disk, a mount or this machine: the unit fails, since a dying disk must not thin out
#: the data without a word.
_OF_THE_FILE = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO, errno.EINVAL, errno.EISDIR)


@dataclass(frozen=True, slots=True)
class ImageFolder(NamedImages):
    """The folders that the images of one input may lie in, in the order they are tried.

    Attributes:
        pattern: `{root}/…/{image_name}` that overrides the folders, or empty.
        folders: existing folders to join an image name to.
        allowed: real paths that a link may lead into; the root's is the first.
        max_bytes: larger files are refused unread.
        refused: folders that would be tried, were they not links that lead out.
        flat: of `folders`, one below which other inputs' images lie: a name that is not right in
            it is not looked for in its folders.
    """

    folders: tuple[str, ...]
    allowed: tuple[str, ...]
    max_bytes: int
    pattern: str = ""
    refused: tuple[str, ...] = ()
    flat: str = ""

    def read(self, name: str, url: str = "") -> StoredImage:
        """The image that a record's name stands for; the URL is of no use here.

        Raises:
            ImageRejected: missing, ambiguous-name, unsafe-path, too-large or unreadable. Its text
                goes into the rejects file beside the shard: it holds no path, which may be another
                elsewhere.
            ReadFaultError: the disk or the machine fails, not the image.
        """
        try:
            # By name, since a dataclass with slots is another class than the one it is written in.
            return NamedImages.read(self, name)
        except ImageRejected as rejected:
            if rejected.reason != ImageDrop.MISSING or not self.refused:
                raise
            raise ImageRejected(
                ImageDrop.UNSAFE_PATH,
                f"{shown(name)}: no such file, but for a folder that is a link and leads out of "
                "the image folder (--allow-symlinks-to opens a folder)",
            ) from None

    def take(self, name: str) -> bytes | None:
        """The file of exactly this name."""
        nested = bool(self.pattern) or "/" in name  # O_NOFOLLOW guards the last part only
        for path in self.candidates(name):
            data = self._read_link(path, name) if nested else self._read_file(path, name)
            if data is not None:
                return data
        return None

    def length(self, name: str) -> int | None:
        """Bytes of the file of exactly this name, without reading it."""
        nested = bool(self.pattern) or "/" in name
        for path in self.candidates(name):
            try:
                info = os.lstat(path)
                if nested or stat.S_ISLNK(info.st_mode):
                    target = os.path.realpath(path)
                    if not self._is_allowed(target):
                        continue
                    info = os.lstat(target)
            except OSError:
                continue
            if stat.S_ISREG(info.st_mode):
                return info.st_size
        return None

    def near(self, name: str) -> list[Near]:
        """The names that one may mean in the first folder that has any."""
        for folder in self._listed():
            if found := names_of(folder, self.allowed, deep=folder != self.flat).near(name):
                return found
        return []

    def nowhere(self) -> str:
        """What is said of an image that is not there."""
        for folder in self._listed():
            if names_of(folder, self.allowed, deep=folder != self.flat).too_large:
                return (
                    f"no such file, nor one like it at its place (of more than {MOST_FILES} files "
                    "none is looked for deeper down)"
                )
        return "no such file"

    def _listed(self) -> tuple[str, ...]:
        """The folders whose names are looked at where an image is not there."""
        if not self.pattern:
            return self.folders
        folder, slash, rest = self.pattern.partition("/{image_name}")
        return (folder,) if slash and not rest and os.path.isdir(folder) else ()

    def candidates(self, name: str) -> list[str]:
        """The paths that are tried for a (checked) name."""
        if self.pattern:
            return [self.pattern.replace("{image_name}", name)]
        return [f"{folder}/{name}" for folder in self.folders]

    def where(self) -> str:
        """The places that are tried, for a person."""
        places = self.pattern or " or ".join(self.folders) or "any folder"
        if not self.refused:
            return places
        links = " and ".join(f"{folder} -> {os.path.realpath(folder)}" for folder in self.refused)
        return f"{places} ({links} leads out: --allow-symlinks-to opens a folder)"

    def _is_allowed(self, target: str) -> bool:
        return any(is_inside(target, folder) for folder in self.allowed)

    def _leads_out(self, path: str, name: str) -> str:
        """The part of a name at which its path leaves the folders that are allowed."""
        parts = name.split("/")
        for number, part in enumerate(parts, start=1):
            behind = "/".join(parts[number:])
            here = path.removesuffix("/" + behind) if behind else path
            if not self._is_allowed(os.path.realpath(here)):
                return f'its part "{shown(part)}"' if len(parts) > 1 else "it"
        return "it"

    def _read_file(self, path: str, name: str) -> bytes | None:
        """The file's bytes; None when it is not there."""
        try:
            descriptor = os.open(path, _OPEN_FLAGS)
        except OSError as error:
            if error.errno == errno.ELOOP:
                return self._read_link(path, name)
            if error.errno in _NOT_THERE:
                return None
            _refuse(path, name, error)
        return self._read_descriptor(descriptor, path, name)

    def _read_link(self, path: str, name: str) -> bytes | None:
        """The file behind a path that is, or may go through, a link."""
        target = os.path.realpath(path)
        if not self._is_allowed(target):
            raise ImageRejected(
                ImageDrop.UNSAFE_PATH,
                f"{shown(name)}: {self._leads_out(path, name)} is a link that leads out of the "
                "image folder (--allow-symlinks-to opens a folder)",
            )
        try:
            descriptor = os.open(target, _OPEN_FLAGS)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            _refuse(target, name, error)
        return self._read_descriptor(descriptor, target, name)

    def _read_descriptor(self, descriptor: int, path: str, name: str) -> bytes | None:
        try:
            info = os.fstat(descriptor)
            if stat.S_ISDIR(info.st_mode):
                return None
            if not stat.S_ISREG(info.st_mode):
                raise ImageRejected(ImageDrop.UNSAFE_PATH, f"{shown(name)}: is not a regular file")
            if info.st_size > self.max_bytes:
                raise ImageRejected(
                    ImageDrop.TOO_LARGE,
                    f"{shown(name)}: {info.st_size} bytes, at most {self.max_bytes} are taken",
                )
            return _read_all(descriptor, info.st_size)
        except OSError as error:
            _refuse(path, name, error)
        finally:
            os.close(descriptor)


def _refuse(path: str, name: str, error: OSError) -> NoReturn:
    """Drop a file that cannot be read, but let through what is not the file's fault."""
    if error.errno not in _OF_THE_FILE:
        raise ReadFaultError(path, error) from error
    raise ImageRejected(ImageDrop.UNREADABLE, f"{shown(name)}: {error.strerror}") from error


def _read_all(descriptor: int, size: int) -> bytes:
    data = os.read(descriptor, size + 1)
    if len(data) == size:
        return data
    parts = [data]
    while more := os.read(descriptor, 1 << 20):
        parts.append(more)
    return b"".join(parts)


def is_inside(path: str, folder: str) -> bool:
    """Whether a real path lies in a real folder."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def find_folders(
    root: str,
    shard_number: str,
    stem: str,
    *,
    named: bool,
    pattern: str | None,
    allow_links_to: tuple[str, ...],
    max_bytes: int,
) -> ImageFolder:
    """The image folders of one input: `<root>/<shard number>/`, `<root>/<stem>/`, then `<root>/`.

    The images of an input whose own name holds no shard number are also looked for in the root's
    only sub-folder, if it has just one.

    Args:
        root: the image folder.
        shard_number: digits from the input's name (or its member's), or empty.
        stem: the input's name without endings.
        named: whether the input's own name holds the number.
        pattern: `--image-path`, which overrides the layout; relative to the root.
        allow_links_to: folders that links may lead into, besides the root.
        max_bytes: of one image file.
    """
    allowed = tuple(os.path.realpath(folder) for folder in (root, *allow_links_to))
    if pattern is not None:
        fields = {"root": root, "shard": shard_number, "stem": stem}
        filled = pattern.format_map(fields | {"image_name": "{image_name}"})
        # What the pattern says outright is where the user wants images to come from.
        said = os.path.dirname(os.path.join(root, pattern.partition("{")[0]))
        return ImageFolder(
            (), (*allowed, os.path.realpath(said)), max_bytes, os.path.join(root, filled)
        )
    names = [shard_number, stem]
    if not named:
        inside = [entry.name for entry in os.scandir(root) if entry.is_dir()]
        names += inside if len(inside) == 1 else []
    folders = [os.path.join(root, name) for name in names if name]
    folders = [folder for folder in [*folders, root] if os.path.isdir(folder)]
    unique = list(dict.fromkeys(os.path.normpath(folder) for folder in folders))
    safe = [f for f in unique if any(is_inside(os.path.realpath(f), a) for a in allowed)]
    refused = tuple(folder for folder in unique if folder not in safe)
    # In the folders of a root that many inputs share lie other inputs' images, of the same names.
    flat = os.path.normpath(root) if shard_number or stem else ""
    return ImageFolder(tuple(safe), allowed, max_bytes, refused=refused, flat=flat)
