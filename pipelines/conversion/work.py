"""What the tasks of a run that writes shards do."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipelines.clip.backend import Scored
from pipelines.clip.model import ClipSpec
from pipelines.conversion.unit import Tick, UnitTask
from pipelines.engine.events import Alive

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
        is_stale: whether a committed shard (folder, number) is to be written again.
        one_shard_each: each input becomes a shard; one that comes out empty is a finding.
    """

    recipe: Job
    run: Callable[[UnitTask[Job]], Iterator[Tick | Scored | Alive]]
    title: str
    images_per_second: float
    clip: ClipSpec | None = None
    key_prefix: str = ""
    counts_unplaced: bool = True
    is_stale: Callable[[str, int], bool] | None = None
    one_shard_each: bool = False
