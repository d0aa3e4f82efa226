"""The run of any conversion: count the inputs, plan, and run the plan of each part.

What differs between kinds of input is the job; everything here is common to them. Nothing is
written before the plan stands and every input was read through.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from mmdata.errors import UserError
from mmdata.sources.pseudonyms import Pseudonyms
from mmdata.sources.records import Segment
from mmdata.storage.urls import absolute, check_writable
from pipelines.clip.backend import Scored, clip_byte_options, images_per_second
from pipelines.conversion.fields import check_fields
from pipelines.conversion.form import check_form
from pipelines.conversion.inputs import count_inputs
from pipelines.conversion.job import ConversionJob
from pipelines.conversion.options import Conversion
from pipelines.conversion.output import earlier_plan
from pipelines.conversion.plan import ConversionPlan, PlanInput, make_plan, refuse_another
from pipelines.conversion.policy import group_options
from pipelines.conversion.pseudonymise import pseudonymise_inputs, pseudonymise_units
from pipelines.conversion.result import ConversionResult
from pipelines.conversion.run_plan import run_plan
from pipelines.conversion.split import Part, add_up, job_of, part_options, parts_of
from pipelines.conversion.task import JobRun, UnitTask, conversion_versions
from pipelines.conversion.unit import convert_unit
from pipelines.engine.events import Alive, Tick
from pipelines.engine.run_units import terminate_as_interrupt
from schemas.manifest import ExcludedInput

#: Rough rate of one core, to decide whether a Ray is worth starting.
_IMAGES_PER_SECOND = 1200.0


def run_conversion(
    options: Conversion,
    job: ConversionJob,
    specs: Sequence[str],
    *,
    suffixes: tuple[str, ...],
    list_segments: Callable[[str], list[Segment]],
    byte_options: dict[str, Any],
    quiet: bool,
    excluded: Sequence[ExcludedInput] = (),
    names: Pseudonyms | None = None,
    run: Callable[[UnitTask[Any]], Iterator[Tick | Scored | Alive]] | None = None,
    rate: float = _IMAGES_PER_SECOND,
    is_stale: Callable[[str, int], bool] | None = None,
) -> ConversionResult:
    """Plan and run a conversion.

    Args:
        options: of the command.
        job: how its records become samples.
        specs: the inputs as named: files, folders, globs, ranges.
        suffixes: endings of the files that a folder of inputs stands for.
        list_segments: the segments of an input; raises BadInputError.
        byte_options: the options that change the shards' bytes.
        quiet: no progress bar.
        excluded: inputs that were left out before.
        names: put pseudonyms in place of the names of inputs in all that is written.
        run, is_stale: see `JobRun`; rate: its `images_per_second` without CLIP.
    """
    _check_named(options, specs)
    output = absolute(options.output)
    parts = parts_of(options, output)
    befores = [earlier_plan(part.folder, overwrite=options.overwrite) for part in parts]
    with terminate_as_interrupt():
        # A plan without the inputs' names cannot tell whether they were counted before.
        known = None if names else befores[0]
        inputs, left_out = count_inputs(
            options, job.scan, specs, suffixes, list_segments, known, quiet=quiet
        )
        left_out = pseudonymise_inputs(inputs, [*excluded, *left_out], names)
        plans = [_plan(options, job, inputs, left_out, byte_options, part) for part in parts]
        for plan in plans:
            pseudonymise_units(plan, names)
        for plan, before, part in zip(plans, befores, parts, strict=True):
            refuse_another(before, plan, part.folder)
        if befores[0] is None:  # else it was asked when that run began
            check_form(job, inputs, hidden=names is not None)
        check_fields(job.wanted, inputs)
        job_run_of = partial(_job_run, job, run or convert_unit, rate, is_stale)
        results = []
        for plan, before, part in zip(plans, befores, parts, strict=True):
            results.append(
                run_plan(options, job_run_of(part), plan, before, part.folder, quiet=quiet)
            )
            if results[-1].interrupted:
                break
    return add_up(parts, results, output)


def _check_named(options: Conversion, specs: Sequence[str]) -> None:
    if not specs:
        raise UserError("no input was named: give files, folders, globs or {0..9} ranges")
    check_writable(options.output, "--output")


def _plan(
    options: Conversion,
    job: ConversionJob,
    inputs: list[PlanInput],
    excluded: list[ExcludedInput],
    byte_options: dict[str, Any],
    part: Part,
) -> ConversionPlan:
    """What is to be written of one part."""
    by_clip = clip_byte_options(job.clip) if job.clip else {}
    by_group = group_options(job.policy.grouping)
    return make_plan(
        job.kind,
        inputs,
        excluded,
        docs_per_shard=part.docs_per_shard(options.docs_per_shard),
        num_shards=options.num_shards,
        options=byte_options | by_clip | by_group | part_options(part),
        versions=conversion_versions(job.clip),
    )


def _job_run(
    job: ConversionJob,
    run: Callable[[UnitTask[Any]], Iterator[Tick | Scored | Alive]],
    rate: float,
    is_stale: Callable[[str, int], bool] | None,
    part: Part,
) -> JobRun[Any]:
    """What the tasks of one part do."""
    rate = images_per_second(job.clip, rate)
    title, job = f"convert {part.name}".strip(), job_of(job, part)
    return JobRun(job, run, title, rate, job.clip, job.key_prefix, part.is_first, is_stale)
