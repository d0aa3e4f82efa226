"""What all options have in common: sections that check themselves, values that are refused."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest

from mmdata.errors import UserError
from mmdata.option_checks import Options, check_least

checked: list[str] = []


@dataclass(frozen=True, kw_only=True)
class _Water(Options):
    section: ClassVar[str] = "Water"

    degrees: float = 94.0

    def _check(self) -> None:
        checked.append("water")
        check_least(self, 80, "degrees")


@dataclass(frozen=True, kw_only=True)
class _Grinder(Options):
    section: ClassVar[str] = "Grinder"

    grind: Literal["fine", "coarse"] | None = None

    def _check(self) -> None:
        checked.append("grinder")


@dataclass(frozen=True, kw_only=True)
class _Brew(_Water, _Grinder):
    section: ClassVar[str] = "Brew"

    beans: tuple[str, ...] = field(metadata={"positional": True})
    add_to: tuple[str, ...] = ()
    cups: int | None = None

    def _check(self) -> None:
        checked.append("brew")
        check_least(self, 1, "cups")


def test_every_section_checks_itself_once_and_what_inherits_it_comes_last() -> None:
    checked.clear()
    _Brew(beans=("arabica",))
    assert checked == ["grinder", "water", "brew"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"degrees": 20.0}, "--degrees 20.0: expected at least 80"),
        ({"degrees": float("nan")}, "--degrees nan: expected at least 80"),
        ({"cups": 0}, "--cups 0: expected at least 1"),
        ({"grind": "medium"}, "--grind medium: expected fine, coarse"),
        ({"beans": "arabica"}, "beans 'arabica': expected a list or tuple of paths"),
        ({"add_to": "milk"}, "--add-to 'milk': expected a list or tuple of paths"),
    ],
)
def test_what_makes_no_sense_names_its_option(given: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as refused:
        _Brew(**({"beans": ("arabica",)} | given))  # type: ignore[arg-type]
    assert str(refused.value) == said
