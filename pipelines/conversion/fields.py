"""Fields of the source that options name: looked for while the inputs are counted.

A name that no record has is refused before anything is written, with the names that there are: a
split by a field with a typo in it would part what belongs together, without a word.
"""

from collections.abc import Iterator, Sequence

from mmdata.errors import UserError
from mmdata.sources.fields import FieldSearch, WantedField, nearest
from mmdata.sources.split import Grouping
from pipelines.conversion.plan import FieldScan, PlanInput

_MOST_SHOWN = 20
_SPLIT_BY = "--split-by"


def wanted_group(grouping: Grouping | None) -> tuple[WantedField, ...]:
    """The field that is to keep documents together, where the user named one."""
    if grouping is None or not grouping.asked:
        return ()
    return (WantedField(_SPLIT_BY, grouping.by),)


def scanned(search: FieldSearch) -> FieldScan | None:
    """What a search through a segment has found; None where nothing was looked for."""
    if not search.left and not search.found:
        return None
    return FieldScan(found=[str(wanted) for wanted in search.found], there=list(search.there))


def check_fields(wanted: Sequence[WantedField], inputs: Sequence[PlanInput]) -> None:
    """Refuse fields that no record of any input has.

    Raises:
        UserError: with the names that there are.
    """
    scans = [scan for entry in inputs for scan in entry.scans if scan.records]
    looked = [scan.fields for scan in scans if scan.fields is not None]
    if len(looked) < len(scans) or not any(scan.found or scan.there for scan in looked):
        return  # counted by an earlier run with other options, or nothing in them is an object
    found = {name for scan in looked for name in scan.found}
    there = list(dict.fromkeys(name for scan in looked for name in scan.there))
    lacking = [field for field in wanted if str(field) not in found]
    if lacking:
        raise UserError("\n".join(_refusal(field, there) for field in lacking))


def _refusal(field: WantedField, there: list[str]) -> str:
    near = nearest(field.path, there)
    problem = "is in no record" if field.path not in there else "has no value in any record"
    meant = f"; did you mean {near}?" if near and near != field.path else ";"
    shown = sorted(there, key=lambda name: (name.count("."), name))[:_MOST_SHOWN]
    more = f" and {len(there) - len(shown)} more" if len(there) > len(shown) else ""
    return f"{field}: this field {problem}{meant} the records have {', '.join(shown)}{more}"


def inputs_without(by: str, inputs: Sequence[PlanInput]) -> Iterator[str]:
    """Names of the inputs of which no record has the field of --split-by."""
    label = str(WantedField(_SPLIT_BY, by))
    for entry in inputs:
        scans = [scan for scan in entry.scans if scan.records]
        looked = [scan.fields for scan in scans if scan.fields is not None]
        if scans and len(looked) == len(scans) and not any(label in s.found for s in looked):
            yield entry.name
