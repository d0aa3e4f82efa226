"""Which device a command's actors compute on, asked where they will run, not where it is started.

The machine that starts a run on a cluster may have no GPU, or one where the cluster has none.
"""

from functools import lru_cache
from typing import Literal

from mmdata.errors import UserError
from pipelines.engine.ray_session import cluster_gpus

Device = Literal["cpu", "cuda"]


def num_gpus(address: str | None = None) -> int:
    """GPUs of a cluster as Ray counts them, or for None those that torch sees here."""
    if address is not None:
        return _of_cluster(address)
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def choose_device(
    wanted: Literal["auto", "cpu", "cuda"], address: str | None, *, flag: str
) -> Device:
    """Where actors compute: as asked, and for `auto` on GPUs where there are any.

    Args:
        wanted: as the user said.
        address: of the cluster; None for this machine.
        flag: how the user said it, for the error.

    Raises:
        UserError: GPUs are asked for and there are none, or the cluster cannot be reached.
    """
    if wanted == "cpu":
        return "cpu"
    if num_gpus(address):
        return "cuda"
    if wanted == "auto":
        return "cpu"
    seen = "torch sees no GPU here" if address is None else f"Ray {address} has no GPU"
    raise UserError(f"{flag} cuda: {seen}; use cpu")


@lru_cache(maxsize=8)
def _of_cluster(address: str) -> int:
    return cluster_gpus(address)
