"""What the options of all commands have in common: sections, and checks of what they are given."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from mmdata.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Options:
    """A section of the options of a command, or all of them: a dataclass whose fields are flags.

    A command inherits its sections, so its fields are flat. When it is made, values that are no
    choices and lone strings for lists are refused, then every section, those that are inherited
    first, is asked by its own `_check`, which raises UserError.

    Attributes:
        section: title of the box that `--help` shows the fields of a class in.
    """

    section: ClassVar[str]

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for column in fields(self):
            flag = column.name if column.metadata.get("positional") else flag_of(column.name)
            _check_value(getattr(self, column.name), hints[column.name], flag)
        for kind in reversed(type(self).__mro__):
            if "_check" in vars(kind):
                vars(kind)["_check"](self)


def flag_of(name: str) -> str:
    """A field as it is written on the command line."""
    return "--" + name.replace("_", "-")


def check_least(options: Options, least: float, *names: str) -> None:
    """Refuse fields that are below what makes sense, and NaN; None is no value."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not value >= least:
            raise UserError(f"{flag_of(name)} {value}: expected at least {least}")


def _check_value(value: Any, hint: Any, flag: str) -> None:
    """Refuse what the command line would refuse by itself, of options that are made in Python."""
    if get_origin(hint) is tuple and isinstance(value, str):  # its letters would be taken for paths
        raise UserError(f"{flag} {value!r}: expected a list or tuple of paths")
    for one in (hint, *get_args(hint)):  # `Level | None` has its choices inside
        if get_origin(one) is Literal and value is not None and value not in get_args(one):
            raise UserError(f"{flag} {value}: expected {', '.join(get_args(one))}")
