"""What a run that writes shards gives its workers: the job, and one unit of it at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mmdata.errors import MMDataError
from mmdata.versions import clip_versions, codec_versions
from pipelines.clip.backend import Scored
from pipelines.clip.model import ClipSpec
from pipelines.conversion.output import committed, lacks_images
from pipelines.conversion.plan import ConversionUnit
from pipelines.engine.events import Alive, Tick

AnyJob = TypeVar("AnyJob")


class UnitError(MMDataError):
    """A record made its unit fail; the text names it."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class UnitTask(Generic[AnyJob]):
    """A unit with all that a worker needs to do it."""

    unit: ConversionUnit
    job: AnyJob
    output: str
    lease_path: str
    run: str
    fingerprint: str
    versions: dict[str, str]
    shards: tuple[int, ...]
    refresh_missing: bool = False
    clip: ClipSpec | None = None
    """What computes the similarities; None: the source has them."""
    pool: tuple[str, ...] = ()
    """Names of the actors that score; empty where the task does."""
    energon: bool = False
    """Whether Energon's index is written with each shard."""
    counts_unplaced: bool = True
    """Whether records that no split can be told of are counted here."""


def conversion_versions(clip: ClipSpec | None) -> dict[str, str]:
    """Versions of all that decides the shards' bytes."""
    return codec_versions() | (clip_versions() if clip else {})


def check_versions(task: UnitTask[Any], versions: dict[str, str]) -> None:
    """Refuse to work with other libraries than the plan was made with.

    Args:
        task: which has the plan's versions.
        versions: of this process.

    Raises:
        UnitError: they differ.
    """
    if versions != task.versions:
        changed = sorted(k for k in task.versions if versions.get(k) != task.versions[k])
        raise UnitError(
            f"this worker has other versions of {', '.join(changed)} than the plan; install the "
            "same everywhere, else the shards would differ"
        )


def is_done(task: UnitTask[Any], shard: int) -> bool:
    """Whether a crashed attempt at this task has committed the shard already."""
    sidecar = committed(task.output, shard, task.fingerprint)
    return sidecar is not None and not (task.refresh_missing and lacks_images(sidecar))


@dataclass(frozen=True, slots=True)
class JobRun(Generic[AnyJob]):
    """What the tasks of a run do.

    Attributes:
        job: given to each of them.
        run_unit: does one unit.
        title: of the progress bar.
        images_per_second: rough rate of one core.
        clip: the model that scores, or None.
        key_prefix: of the samples.
        counts_unplaced: records that no split can be told of are counted here.
        is_stale: whether a committed shard (folder, number) is to be written again.
        one_shard_each: each input becomes a shard; one that comes out empty is a finding.
    """

    job: AnyJob
    run_unit: Callable[[UnitTask[AnyJob]], Iterator[Tick | Scored | Alive]]
    title: str
    images_per_second: float
    clip: ClipSpec | None = None
    key_prefix: str = ""
    counts_unplaced: bool = True
    is_stale: Callable[[str, int], bool] | None = None
    one_shard_each: bool = False
