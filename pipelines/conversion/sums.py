"""What a run came to, by the sidecars on disk: they alone say what exists."""

from collections.abc import Iterator, Sequence

from pipelines.conversion.dedupe import standing
from pipelines.conversion.form import FormTally
from pipelines.conversion.output_files import OutputFiles
from pipelines.conversion.plan import ConversionPlan, ConversionUnit
from pipelines.conversion.result import ConversionResult
from pipelines.conversion.task import AnyJob, JobRun, UnitTask
from pipelines.engine.events import UnitFailure


def sum_up(
    result: ConversionResult,
    job_run: JobRun[AnyJob],
    tasks: Sequence[UnitTask[AnyJob]],
    files: OutputFiles,
) -> None:
    """Put what is committed now into the result; what is not there, and why nobody said so.

    Args:
        result: of the run, with its plan.
        job_run: what its tasks did.
        tasks: that it did.
        files: of the output folder.
    """
    plan, output = result.plan, result.output
    planned = {shard for task in tasks for shard in task.shards}
    forms = FormTally()
    for unit, shard in _shards_of(plan):
        sidecar = standing(plan, output, shard, files=files)
        if sidecar is None:
            result.shards_left += 1
            forms.add_missing(unit.file)
            continue
        result.tally.add(sidecar.tally)
        forms.add(unit.file, sidecar.tally)
        if job_run.one_shard_each and not sidecar.tally.documents:
            result.lost += [span.file for span in sidecar.source]
        if shard in planned:
            result.shards_written += 1
    result.unfit = [] if job_run.one_shard_each else forms.unfit()
    failed = {label for label, _ in result.failures}
    for index, task in enumerate(tasks):
        label = task.unit.label
        gone = [s for s in task.shards if standing(plan, output, s, files=files) is None]
        if gone and label not in failed and not result.interrupted:
            reason = f"ended without writing {len(gone)} of its shards; run the command again"
            result.failures.append((label, UnitFailure(index, reason, "")))


def _shards_of(plan: ConversionPlan) -> Iterator[tuple[ConversionUnit, int]]:
    """Every shard of a plan, with the unit that writes it."""
    for unit in plan.units:
        for shard in range(unit.first_shard, unit.first_shard + unit.num_shards):
            yield unit, shard
