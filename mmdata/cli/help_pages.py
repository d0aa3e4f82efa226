"""`--help`: tyro's pages of the dataclasses that `mmdata.cli.arguments` reads the words by.

tyro is loaded when a page is shown, and not for a run.
"""

from collections.abc import Sequence
from dataclasses import MISSING, Field, field, fields, make_dataclass
from typing import Annotated, Any, NoReturn, get_type_hints

_DESCRIPTION = (
    "Vision-language raw material to validated shards, and training from them. "
    "`mmdata COMMAND --help` tells a command's options."
)


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether the words ask for help; behind `--` there are values only."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--help" in options or "-h" in options


def show_help(types: dict[str, Any], prog: str) -> NoReturn:
    """Print the help of one command, or the list of several."""
    import tyro

    whole = len(types) > 1
    chosen: Any = _union(types) if whole else next(iter(types.values()))
    tyro.cli(
        chosen,
        prog=prog,
        description=_DESCRIPTION if whole else None,
        args=["--help"],
        config=(tyro.conf.PositionalMetavarFromFieldName, tyro.conf.DisallowNone),
    )
    raise AssertionError("tyro leaves after it has shown the help")


def shown_type(options: type, defaults: dict[str, Any]) -> Any:
    """The options as the help shows them: positional fields marked, defaults from a file.

    A flag that is off shows the form that turns it on, which is what its text is about. Any other
    shows both forms, since its text does not hold for the one that turns it off.
    """
    import tyro

    hints = get_type_hints(options)
    columns: list[tuple[str, Any, Field[Any]]] = []
    for column in fields(options):
        hint: Any = hints[column.name]
        if column.metadata.get("positional"):
            hint = Annotated[hint, *_markers(tyro.conf.Positional)]
            if column.name not in defaults and column.default is MISSING:  # else tyro says optional
                name = column.name.upper()
                hint = Annotated[hint, tyro.conf.arg(metavar=name, help_behavior_hint="(required)")]
        if column.metadata.get("repeat"):
            hint = Annotated[hint, *_markers(tyro.conf.UseAppendAction)]
        value = defaults.get(column.name, column.default)
        if value is False:
            hint = Annotated[hint, *_markers(tyro.conf.FlagCreatePairsOff)]
        elif hint == bool | None:
            shown = None if value is None else str(value)
            hint = Annotated[bool, tyro.conf.arg(help_behavior_hint=f"(default: {shown})")]
            value = bool(value)
        new: Field[Any] = field(kw_only=True) if value is MISSING else field(default=value)
        columns.append((column.name, hint, new))
    kind = make_dataclass(
        options.__name__,
        columns,
        bases=(options,),
        frozen=True,
        kw_only=True,
        namespace={"__post_init__": lambda self: None},
    )
    kind.__doc__ = options.__doc__
    return kind


def _markers(marker: Any) -> tuple[Any, ...]:
    """What a marker of tyro's puts beside a type."""
    found: tuple[Any, ...] = marker[str].__metadata__
    return found


def _union(types: dict[str, Any]) -> Any:
    """One type that stands for any of the commands."""
    import tyro

    union: Any = None
    for name, kind in types.items():
        command: Any = Annotated[kind, tyro.conf.subcommand(name=name)]
        union = command if union is None else union | command
    return union
