"""What a run that writes shards is told: the work of its tasks, and the options that all share."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from mmdata.similarity import ClipSpec
from pipelines.clip import Scored
from pipelines.units import Tick, UnitTask

Job = TypeVar("Job")


@dataclass(frozen=True, slots=True)
class Work(Generic[Job]):
    """What the tasks of a run do.

    Attributes:
        recipe: given to each of them.
        run: does one unit.
        title: of the progress bar.
        images_per_second: rough rate of one core.
        clip: the model that scores, or None.
        key_prefix: of the samples.
        counts_unplaced: records that no split can be told of are counted here.
    """

    recipe: Job
    run: Callable[[UnitTask[Job]], Iterator[Tick | Scored]]
    title: str
    images_per_second: float
    clip: ClipSpec | None = None
    key_prefix: str = ""
    counts_unplaced: bool = True


class RunOptions(Protocol):
    """What a run is told, whatever it works on."""

    @property
    def workers(self) -> int | None: ...
    @property
    def ray_address(self) -> str | None: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def overwrite(self) -> bool: ...
    @property
    def refresh_missing(self) -> bool: ...
    @property
    def verify_committed(self) -> bool: ...
    @property
    def ignore_free_space(self) -> bool: ...
    @property
    def dry_run(self) -> bool: ...
    @property
    def log_json(self) -> str | None: ...
    @property
    def clip_actors(self) -> int | None: ...
