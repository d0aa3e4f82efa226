"""A lease on a disk: made by linking a finished draft, touched by its time, renamed away.

Hard links give "make it whole, unless it is there", which a plain rename does not. A stale lease is
taken over by renaming it away first, which only one of several takers can do.
"""

import errno
import os
import time
import uuid

from mmdata.storage.atomic import remove, temporary_path

#: What a file system without hard links (FAT, some FUSE and SMB mounts) answers to one.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class FileKeeper:
    """Keeps a lease on a disk."""

    def __init__(self, path: str) -> None:
        self._path = path

    def create(self, data: bytes) -> bool:
        """Make the lease, whole, unless there is one."""
        draft = temporary_path(self._path)
        with open(draft, "wb") as file:
            file.write(data)
        try:
            return _rename_new(draft, self._path)
        except FileNotFoundError:
            return False  # the draft was swept by the run that holds the folder
        finally:
            remove([draft])

    def touch(self, data: bytes) -> None:
        """Set the file's time to now."""
        os.utime(self._path)

    def take_over(self, seen: bytes, data: bytes) -> None:
        """Rename the lease away and make a new one; of several takers, one succeeds."""
        aside = f"{self._path}.{uuid.uuid4().hex}.stale.tmp"
        try:
            os.rename(self._path, aside)
        except FileNotFoundError:
            return
        with open(aside, "rb") as file:
            moved = file.read()
        if moved != seen:
            _rename_new(aside, self._path)  # it was somebody's fresh lease: put it back
        remove([aside])
        self.create(data)

    def remove(self) -> None:
        """Remove the holder's own lease."""
        remove([self._path])

    def age_seconds(self) -> float:
        """By this machine's clock; hosts whose clocks differ by more than a minute mislead it."""
        return time.time() - os.stat(self._path).st_mtime


def _rename_new(source: str, target: str) -> bool:
    """Rename, unless the target's name is taken; a plain rename would replace it."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(target):
            return False
        os.rename(source, target)  # two at one moment could both succeed, without links
        return True
    remove([source])
    return True
