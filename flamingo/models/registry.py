"""The table of families: by name, the options of a run of each, and how it is found.

A family loads on first use, since most of what it is made of needs torch; options need the standard
library only.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from flamingo.models.flamingo.options import Train
from flamingo.options.run import RunOptions
from mmdata.errors import UserError

if TYPE_CHECKING:  # not a circle: the seam imports torch, and a name costs nothing
    from flamingo.models.family import Family


class FamilyEntry(NamedTuple):
    """A family in the table.

    Attributes:
        options: of a run that trains a model of the family.
        load: gives the family.
    """

    options: type[RunOptions]
    load: "Callable[[], Family[Any]]"


def _flamingo() -> "Family[Any]":
    from flamingo.models.flamingo.family import FlamingoFamily

    return FlamingoFamily()


FAMILIES = {"flamingo": FamilyEntry(Train, _flamingo)}
#: Of runs and exports from before there were others, which name none.
FIRST_FAMILY = "flamingo"
#: In the record of a run's options and the header of an export: the family of its model.
FAMILY_OPTION = "family"


def find_family(name: str) -> "Family[Any]":
    """The family of this name; raises UserError where there is none."""
    return _entry(name).load()


def record_of(options: RunOptions) -> dict[str, Any]:
    """The options of a run as JSON, with the family that they are of."""
    return {FAMILY_OPTION: options.family} | asdict(options)


def options_of(record: Mapping[str, Any]) -> RunOptions:
    """The options of a run from their record, or from a file.

    Raises:
        UserError: there is no such family, or the options make no sense.
    """
    given: dict[str, Any] = {
        name: tuple(one) if isinstance(one, list) else one for name, one in record.items()
    }
    return options_type(given.pop(FAMILY_OPTION, FIRST_FAMILY))(**given)


def options_type(name: str = FIRST_FAMILY) -> type[RunOptions]:
    """The class of the options of a run; raises UserError where there is no such family."""
    return _entry(name).options


def _entry(name: str) -> FamilyEntry:
    if name not in FAMILIES:
        raise UserError(f"model family {name}: expected one of {', '.join(FAMILIES)}")
    return FAMILIES[name]
