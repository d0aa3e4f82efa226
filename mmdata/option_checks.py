"""Checks that the options of several commands share: numbers, choices and paths."""

from typing import Any, Literal, get_args, get_origin, get_type_hints

from mmdata.errors import UserError


def check_choices(options: Any) -> None:
    """Refuse a value that is not among a field's choices (the command line does so by itself)."""
    for name, hint in get_type_hints(type(options)).items():
        value = getattr(options, name)
        for one in (hint, *get_args(hint)):  # `Level | None` has its choices inside
            if get_origin(one) is Literal and value is not None and value not in get_args(one):
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} {value}: expected {', '.join(get_args(one))}")


def check_paths(paths: Any, flag: str) -> None:
    """Refuse a lone string where several are expected: its letters would be taken for paths."""
    if isinstance(paths, str):
        raise UserError(f"{flag} {paths!r}: expected a list or tuple of paths")


def at_least(value: float, least: int, flag: str) -> None:
    if not value >= least:  # NaN is not
        raise UserError(f"{flag} {value}: expected at least {least}")
