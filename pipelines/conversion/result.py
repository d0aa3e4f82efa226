"""What a run that writes shards came to."""

from dataclasses import dataclass, field

from mmdata.errors import EXIT_DONE, EXIT_FINDINGS, EXIT_INTERRUPTED
from pipelines.clip.backend import Scored
from pipelines.conversion.form import UnfitInput
from pipelines.conversion.plan import ConversionPlan
from pipelines.engine.events import UnitAgain, UnitFailure
from schemas.manifest import Groups, Tally


@dataclass(slots=True)
class ConversionResult:
    """What a run came to.

    Attributes:
        plan: what was to be done.
        tally: of every shard that is committed, by this run or before.
        shards_written: by this run.
        shards_kept: committed before, and left as they were.
        shards_left: not there yet (after --limit, failures or an interruption).
        failures: units that failed, with their reason.
        again: units that were run again after a crash or a stall, each time.
        complete: the manifest is written.
        interrupted: Ctrl-C or SIGTERM.
        limited: stopped at --limit.
        dry_run: only the plan was made.
        workers: that would do the work of a dry run.
        seconds: how long the work took; of a dry run, how long it would take.
        scored: what CLIP has scored in this run, where it was asked to.
        lost: inputs of which no document is left, where that is for the user to look at.
        groups: what stays together in a complete output, and how many of it; None without.
        unfit: inputs of which every record was dropped for its form.
        splits: with --split, what each came to; the rest is their sum.
    """

    plan: ConversionPlan
    output: str
    tally: Tally = field(default_factory=Tally)
    shards_written: int = 0
    shards_kept: int = 0
    shards_left: int = 0
    failures: list[tuple[str, UnitFailure]] = field(default_factory=list)
    again: list[tuple[str, UnitAgain]] = field(default_factory=list)
    complete: bool = False
    interrupted: bool = False
    limited: bool = False
    dry_run: bool = False
    workers: int = 0
    seconds: float = 0.0
    scored: Scored | None = None
    lost: list[str] = field(default_factory=list)
    groups: Groups | None = None
    unfit: list[UnfitInput] = field(default_factory=list)
    splits: "list[tuple[str, ConversionResult]]" = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 done, 1 units failed or an input was lost or is of another form, 3 interrupted."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        return EXIT_FINDINGS if self.failures or self.lost or self.unfit else EXIT_DONE
