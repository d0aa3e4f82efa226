"""Names of models, which are folders or names on a hub."""

import os

from mmdata.errors import UserError


def refuse_missing_folder(told: str, name: str) -> None:
    """Say that a folder is missing, where a hub would only say what its names are made of.

    Args:
        told: what is said to be missing.
        name: as it was given; `org/model` is a hub's, what begins like a path or has more parts is
            a path.

    Raises:
        UserError: it is a path, and nothing is there.
    """
    if _is_path(name) and not os.path.exists(os.path.expanduser(name)):
        raise UserError(f"{told}: no such folder")


def _is_path(name: str) -> bool:
    if ":" in name.partition("/")[0]:  # hf-hub:, local-dir:, s3:
        return False
    starts = name.startswith((os.sep, f".{os.sep}", f"..{os.sep}", "~"))
    return starts or name in (".", "..") or name.count("/") > 1 or name.endswith("/")
