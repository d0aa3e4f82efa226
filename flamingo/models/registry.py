"""The table of families: a name, and how its family is found.

A family loads on first use, since most of what it is made of needs torch.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mmdata.errors import UserError

if TYPE_CHECKING:  # not a circle: the seam imports torch, and a name costs nothing
    from flamingo.models.family import Family


def _flamingo() -> "Family[Any]":
    from flamingo.models.flamingo.family import FlamingoFamily

    return FlamingoFamily()


FAMILIES: "dict[str, Callable[[], Family[Any]]]" = {"flamingo": _flamingo}
#: Of runs and exports from before there were others, which name none.
FIRST_FAMILY = "flamingo"


def find_family(name: str) -> "Family[Any]":
    """The family of this name.

    Raises:
        UserError: there is none.
    """
    if name not in FAMILIES:
        raise UserError(f"model family {name}: expected one of {', '.join(FAMILIES)}")
    return FAMILIES[name]()
