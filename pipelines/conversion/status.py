"""`mmdata status OUT`: how far a conversion is, from what lies in its folder and from anywhere.

Nothing is asked of the run itself: plan, sidecars and lease say it all, while it goes on and after
a crash, on any machine that sees the folder. So the rate is that of the last ten minutes' commits,
by the times of their files, and a run that is within its first shards has none yet.
"""

import os
import time
from dataclasses import dataclass, field

from mmdata.errors import EXIT_DONE, EXIT_FINDINGS, UserError
from mmdata.shards.naming import MANIFEST_NAME, SIDECAR, shard_stem
from mmdata.storage.files import list_folder
from mmdata.storage.lease import LEASE_NAME, Lease, LeaseHolder, age_seconds, is_stale, read_holder
from mmdata.storage.urls import absolute
from pipelines.conversion.dedupe import standing
from pipelines.conversion.output import leftovers, sweep
from pipelines.conversion.output_files import look_at
from pipelines.conversion.plan import ConversionPlan, load_plan
from pipelines.conversion.status_options import Status
from schemas.manifest import Tally

#: Commits of this long before the last one make the rate.
_WINDOW_SECONDS = 600.0


@dataclass(slots=True)
class RunStatus:
    """How far a conversion is.

    Attributes:
        output: its folder.
        state: `complete`, `running`, `stopped` (nobody holds the lease) or `crashed` (its holder
            is gone).
        shards_done: committed, drafts included.
        shards_total: of the plan.
        drafts: of those done, still to be looked through for duplicates.
        records_done: in the committed shards.
        records_total: of the plan.
        tally: of the committed shards.
        holder: of the lease, alive or not.
        heartbeat_seconds: since the holder was last heard of.
        records_per_second: lately; None when nothing is known of it.
        leftovers: temporary files of killed runs (or of the one that is running).
        cleaned: how many of them were removed.
    """

    output: str
    state: str
    shards_done: int = 0
    shards_total: int = 0
    drafts: int = 0
    records_done: int = 0
    records_total: int = 0
    tally: Tally = field(default_factory=Tally)
    holder: LeaseHolder | None = None
    heartbeat_seconds: float = 0.0
    records_per_second: float | None = None
    leftovers: int = 0
    cleaned: int | None = None

    @property
    def seconds_left(self) -> float | None:
        """Until the last shard, at the rate of late."""
        if self.state != "running" or not self.records_per_second:
            return None
        return (self.records_total - self.records_done) / self.records_per_second

    @property
    def exit_code(self) -> int:
        """0 complete or running, 1 stopped or crashed before the end."""
        return EXIT_DONE if self.state in ("complete", "running") else EXIT_FINDINGS


def status(options: Status) -> RunStatus:
    """How far the conversion in a folder is.

    Raises:
        UserError: there is none, or leftovers are to be removed while a run goes on.
    """
    output = absolute(options.output)
    plan = load_plan(output)
    if plan is None:
        raise UserError(f"{output}: no conversion has been planned there (no plan.json)")
    cleaned = None
    if options.clean:
        with Lease(output):  # a UserError where another run holds it
            cleaned = sweep(output)
    found = _status(plan, output)
    found.cleaned = cleaned
    return found


def _status(plan: ConversionPlan, output: str) -> RunStatus:
    found = RunStatus(output, "stopped", shards_total=plan.num_shards)
    found.records_total = plan.num_records
    times: list[tuple[float, int]] = []
    files, facts = look_at(output), list_folder(output)
    for shard in range(plan.num_shards):
        sidecar = standing(plan, output, shard, files=files)
        if sidecar is None:
            continue
        found.shards_done += 1
        found.drafts += sidecar.fingerprint != plan.fingerprint
        records = sidecar.tally.records + sidecar.tally.other_splits
        found.records_done += records
        found.tally.add(sidecar.tally)
        written = facts.get(shard_stem(shard) + SIDECAR)
        times.append((written.seconds if written else time.time(), records))
    found.records_per_second = _rate(times)
    found.leftovers = len(leftovers(output))
    _add_holder(found)
    if found.state == "stopped" and MANIFEST_NAME in facts:
        found.state = "complete"
    return found


def _add_holder(found: RunStatus) -> None:
    """Who holds the folder, and whether it is still heard of."""
    path = os.path.join(found.output, LEASE_NAME)
    found.holder = read_holder(path)
    if found.holder is not None:
        found.heartbeat_seconds = age_seconds(path)
        found.state = "crashed" if is_stale(path, found.holder) else "running"


def _rate(times: list[tuple[float, int]]) -> float | None:
    """Records a second over the last commits; the first of them only starts the clock."""
    times = sorted(times)
    late = [(when, records) for when, records in times if when >= times[-1][0] - _WINDOW_SECONDS]
    if len(late) < 2 or late[-1][0] <= late[0][0]:
        return None
    return sum(records for _, records in late[1:]) / (late[-1][0] - late[0][0])
