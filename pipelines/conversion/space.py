"""Whether the disks can hold what a conversion is going to write."""

import os
import shutil

from mmdata.errors import UserError
from mmdata.storage.urls import is_url
from pipelines.conversion.plan import ConversionPlan


def human_bytes(number: float) -> str:
    """Bytes with a decimal unit, as disks are sold: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(number) < 1000 or unit == "TB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    raise ValueError(number)


def human_seconds(number: float) -> str:
    """A length of time in its two largest units: 3 h 20 min."""
    minutes, seconds = divmod(round(number), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s"))
    first = next((at for at, (amount, _) in enumerate(parts) if amount), 3)
    return (
        " ".join(f"{amount} {unit}" for amount, unit in parts[first : first + 2] if amount) or "0 s"
    )


def free_bytes(output: str) -> int | None:
    """Free on the disk of a folder that need not exist yet; None of a store, which has no end."""
    if is_url(output):
        return None
    folder = os.path.abspath(output)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return shutil.disk_usage(folder).free


def check_space(plan: ConversionPlan, output: str, shards: int, *, freed_bytes: int = 0) -> None:
    """Refuse to start when the output's disk cannot hold the shards that are still to be written.

    Args:
        plan: of the conversion.
        output: its folder.
        shards: that are to be written.
        freed_bytes: of an earlier conversion that is about to be removed.

    Raises:
        UserError: with both figures.
    """
    free = free_bytes(output)
    if free is None:
        return
    share = shards / max(plan.num_shards, 1)
    wanted = plan.estimate().write_bytes * share
    free += freed_bytes
    if wanted > free:
        raise UserError(
            f"{output}: about {human_bytes(wanted)} are to be written (estimated from "
            f"{plan.estimate().probed_images} images), {human_bytes(free)} are free; make room, "
            "choose another --output, or --ignore-free-space"
        )
