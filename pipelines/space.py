"""Whether the disks can hold what a conversion is going to write."""

import shutil

from mmdata.errors import UserError
from pipelines.plan import Plan


def human_bytes(number: float) -> str:
    """Bytes with a decimal unit, as disks are sold: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(number) < 1000 or unit == "TB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    raise ValueError(number)


def check_space(plan: Plan, output: str, shards: int, *, freed_bytes: int = 0) -> None:
    """Refuse to start when the output's disk cannot hold the shards that are still to be written.

    Args:
        plan: of the conversion.
        output: its folder.
        shards: that are to be written.
        freed_bytes: of an earlier conversion that is about to be removed.

    Raises:
        UserError: with both figures.
    """
    share = shards / max(plan.num_shards, 1)
    wanted = plan.estimate().write_bytes * share
    free = shutil.disk_usage(output).free + freed_bytes
    if wanted > free:
        raise UserError(
            f"{output}: about {human_bytes(wanted)} are to be written (estimated from "
            f"{plan.estimate().probed_images} images), {human_bytes(free)} are free; make room, "
            "choose another --output, or --ignore-free-space"
        )
