"""Plans that do not tell the names of their inputs: pseudonyms in all that is written down.

The plan that is worked on keeps the paths, in memory only. What is kept in the output folder has
none, so a resume counts its inputs again.
"""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from mmdata.sources.pseudonyms import Pseudonyms
from mmdata.sources.records import Segment
from pipelines.conversion.plan import ConversionPlan, PlanInput, SegmentScan
from schemas.manifest import ExcludedInput


def pseudonymise_inputs(
    inputs: Sequence[PlanInput], excluded: Sequence[ExcludedInput], names: Pseudonyms | None
) -> list[ExcludedInput]:
    """Give inputs their pseudonyms, before the plan is made of them; returns the excluded ones'."""
    if names is None:
        return list(excluded)
    for entry in inputs:
        entry.name = names.of(entry.name)
    return [
        ExcludedInput(file=names.of(entry.file), problem="cannot be used; not told why here")
        for entry in excluded
    ]


def pseudonymise_units(plan: ConversionPlan, names: Pseudonyms | None) -> None:
    """Give the members of a plan's units their pseudonyms, and mark it as hidden."""
    if names is None:
        return
    plan.units = [
        msgspec.structs.replace(unit, member=_pseudonym(unit.segment.member, names))
        for unit in plan.units
    ]
    plan.hidden = True


def _pseudonym(member: str, names: Pseudonyms) -> str:
    return names.of(member) if member else ""


def _public_scan(scan: SegmentScan) -> SegmentScan:
    """A scan without places, and without the names of fields: those may tell something too."""
    return msgspec.structs.replace(scan, looked_in="", fields=None)


def public_plan(plan: ConversionPlan) -> ConversionPlan:
    """A plan as it may be written down."""
    if not plan.hidden:
        return plan
    shown = {unit.segment: unit.member or "" for unit in plan.units}

    def public(segment: Segment, name: str) -> Segment:
        return replace(segment, path=name, member=shown.get(segment, ""))

    return msgspec.structs.replace(
        plan,
        inputs=[
            msgspec.structs.replace(
                entry,
                path=entry.name,
                segments=[public(segment, entry.name) for segment in entry.segments],
                scans=[_public_scan(scan) for scan in entry.scans],
            )
            for entry in plan.inputs
        ],
        units=[
            msgspec.structs.replace(unit, segment=public(unit.segment, unit.file))
            for unit in plan.units
        ],
    )
