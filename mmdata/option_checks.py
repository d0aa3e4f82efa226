"""What the options of all commands have in common: sections, and checks of what they are given."""

from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from mmdata.errors import UserError


class Options:
    """A section of the options of a command, or all of them: a dataclass whose fields are flags.

    A command inherits its sections, so its fields are flat; the first that it inherits is shown
    first. When it is made, values that are no choices are refused, then every section is asked by
    its own `_check`, which raises UserError.

    Attributes:
        section: title of the box that `--help` shows the fields of this very class in.
    """

    section: ClassVar[str]

    def __post_init__(self) -> None:
        check_choices(self)
        for kind in reversed(type(self).__mro__):
            if "_check" in vars(kind):
                vars(kind)["_check"](self)


def flag_of(name: str) -> str:
    """A field as it is written on the command line."""
    return "--" + name.replace("_", "-")


def check_choices(options: Any) -> None:
    """Refuse a value that is not among a field's choices (the command line does so by itself).

    Args:
        options: a dataclass, whose fields of a `Literal` type are checked.

    Raises:
        UserError: naming the flag, the value and the choices.
    """
    for name, hint in get_type_hints(type(options)).items():
        for one in (hint, *get_args(hint)):  # `Level | None` has its choices inside
            if get_origin(one) is Literal:
                value = getattr(options, name)
                if value is not None and value not in get_args(one):
                    raise UserError(f"{flag_of(name)} {value}: expected {', '.join(get_args(one))}")


def check_paths(paths: Any, flag: str) -> None:
    """Refuse a lone string where several are expected: its letters would be taken for paths.

    Raises:
        UserError: it is one.
    """
    if isinstance(paths, str):
        raise UserError(f"{flag} {paths!r}: expected a list or tuple of paths")


def check_least(options: Any, least: float, *names: str) -> None:
    """Refuse fields that are below what makes sense; None is no value.

    Args:
        options: a dataclass.
        least: that each may be.
        names: of the fields.

    Raises:
        UserError: naming the flag.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None:
            at_least(value, least, flag_of(name))


def at_least(value: float, least: float, flag: str) -> None:
    """Refuse a value below the least, and NaN, in a line that names its flag."""
    if not value >= least:  # NaN is not
        raise UserError(f"{flag} {value}: expected at least {least}")
