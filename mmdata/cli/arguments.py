"""The words behind a command, read by the dataclass of its options.

An option has one value. Given twice it is refused, since no one can tell which was meant; lists
take several values, behind one option or behind several. Whatever is wrong is one line that names
the option. `help_pages` shows the same dataclasses.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mmdata.errors import UserError

Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Option:
    """A field of a command's options, as the command line knows it.

    Attributes:
        field: its name.
        hint: its type, without None.
        positional: given without a name.
        repeat: a list of which each value has the option before it.
        empty: an empty text is a value of it.
    """

    field: str
    hint: Any
    positional: bool
    repeat: bool
    empty: bool

    @property
    def name(self) -> str:
        """What a user writes: `--max-side` for a flag, `INPUT` for a positional."""
        return self.field.upper() if self.positional else "--" + self.field.replace("_", "-")

    @property
    def is_list(self) -> bool:
        """Whether it takes any number of values."""
        return get_args(self.hint)[1:] == (Ellipsis,)

    @property
    def values(self) -> int | None:
        """How many values stand behind it; None: as many as there are."""
        if self.hint is bool:
            return 0
        if self.is_list:
            return 1 if self.repeat else None
        return len(get_args(self.hint)) if get_origin(self.hint) is tuple else 1


@dataclass(frozen=True, slots=True)
class _Given:
    """An option with what stands behind it; `word` is its name as written."""

    option: Option
    word: str
    values: Words


def options_of(kind: type) -> list[Option]:
    """What a command can be told, in the order of its fields."""
    hints = get_type_hints(kind)
    return [
        Option(
            field=column.name,
            hint=_without_none(hints[column.name]),
            positional=bool(column.metadata.get("positional")),
            repeat=bool(column.metadata.get("repeat")),
            empty=column.default == "",
        )
        for column in fields(kind)
    ]


def read_arguments(command: str, kind: type, words: Sequence[str]) -> dict[str, Any]:
    """The values of the options that are given.

    Args:
        command: that the words stand behind.
        kind: the dataclass of its options.
        words: of the command line.

    Raises:
        UserError: an unknown option, one given twice, or a value that it cannot have.
    """
    given: dict[str, list[_Given]] = {}
    for one in _split(command, options_of(kind), words):
        given.setdefault(one.option.field, []).append(one)
    return {name: _value(occurrences) for name, occurrences in given.items()}


def check_complete(command: str, kind: type, values: Collection[str]) -> None:
    """Refuse a command that lacks what it cannot do without.

    Args:
        command: for the message.
        kind: the dataclass of its options.
        values: names of the fields that are given.
    """
    needed = {column.name for column in fields(kind) if column.default is MISSING}
    options = sorted(options_of(kind), key=lambda one: not one.positional)
    missing = [one.name for one in options if one.field in needed and one.field not in values]
    if missing:
        raise UserError(
            f"{command}: expected {' and '.join(missing)}; `mmdata {command} --help` explains them"
        )


def check_value(value: Any, option: Option, told: str) -> None:
    """Refuse what no option means: an empty text, a NUL, no UTF-8, a number that is not finite.

    (Inputs, which have no name before them, may be called anything: their command tells.)

    Args:
        value: of the option's type.
        option: that has it.
        told: how the option was named.
    """
    if isinstance(value, tuple):
        for one in value:
            check_value(one, option, told)
    elif isinstance(value, str):
        if not value and not option.empty:
            raise UserError(f"{told}: expected a value, got an empty text")
        if "\0" in value:
            raise UserError(f"{told} {value!r}: expected a text without NUL")
        if not option.positional and not value.isascii() and any(map(_is_surrogate, value)):
            raise UserError(f"{told} {value!a}: expected UTF-8; rename what is called so")
    elif isinstance(value, float) and not isfinite(value):
        raise UserError(f"{told} {value}: expected a finite number")


def _is_surrogate(character: str) -> bool:
    """How Python hands over a byte that is not UTF-8."""
    return "\ud800" <= character <= "\udfff"


def meant(word: str, known: Collection[str], otherwise: str) -> str:
    """The nearest of the known words, or what else to say."""
    near = get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else otherwise


def is_option(word: str) -> bool:
    """Whether a word names an option; numbers below zero, and a lone dash, are values."""
    if not word.startswith("-") or word == "-":
        return False
    try:
        float(word)
    except ValueError:
        return True
    return False


def _split(command: str, options: Sequence[Option], words: Sequence[str]) -> Iterator[_Given]:
    """The words, each with the option that it belongs to."""
    named = {one.name: one for one in options if not one.positional}
    flags = {f"--no-{one.name[2:]}": one for one in named.values() if one.hint is bool}
    names = named | flags
    place = 0
    bare: list[str] = []
    while place < len(words):
        word = words[place]
        place += 1
        if word == "--":
            bare += words[place:]
            break
        if not is_option(word):
            bare.append(word)
            continue
        written, equals, attached = word.partition("=")
        name = "--" + written.removeprefix("--").replace("_", "-")
        if name not in names or not written.startswith("--"):
            otherwise = f"`mmdata {command} --help` lists them"
            raise UserError(f"{command}: no option {written}; {meant(name, names, otherwise)}")
        values: Words = (attached,) if equals else ()
        wanted = names[name].values
        while place < len(words) and not is_option(words[place]):
            if wanted is not None and len(values) >= wanted:
                break
            values += (words[place],)
            place += 1
        yield _Given(names[name], name, values)
    yield from _positional(command, options, bare)


def _positional(command: str, options: Sequence[Option], bare: Sequence[str]) -> Iterator[_Given]:
    """What stands there without a name."""
    taking = next((one for one in options if one.positional), None)
    if not bare:
        return
    if taking is None:
        raise UserError(f"{command}: {bare[0]!r} belongs to no option; all of them have names")
    if not taking.is_list and len(bare) > 1:
        raise UserError(f"{command}: expected one {taking.name}, got {' and '.join(bare)}")
    yield _Given(taking, taking.name, tuple(bare))


def _value(occurrences: Sequence[_Given]) -> Any:
    """What an option comes to, however often it stands there."""
    first, option = occurrences[0], occurrences[0].option
    if option.is_list:
        parts = [part for one in occurrences for part in one.values]
        if not all(one.values for one in occurrences):
            raise UserError(f"{first.word}: expected a value behind it")
        return tuple(_converted(part, get_args(option.hint)[0], first) for part in parts)
    if len(occurrences) > 1:
        raise UserError(_twice(occurrences))
    if option.hint is bool:
        if first.values:
            both = f"--{option.name[2:]} or --no-{option.name[2:]}"
            raise UserError(f"{first.word}={first.values[0]}: takes no value; write {both}")
        return first.word == option.name
    if len(first.values) != option.values:
        many = "a value" if option.values == 1 else f"{option.values} values"
        raise UserError(f"{first.word}: expected {many} behind it{_dashed(option)}")
    if get_origin(option.hint) is tuple:
        hints = get_args(option.hint)
        pairs = zip(first.values, hints, strict=True)
        return tuple(_converted(part, hint, first) for part, hint in pairs)
    return _converted(first.values[0], option.hint, first)


def _dashed(option: Option) -> str:
    return f" (one that begins with a dash: {option.name}=-…)" if option.hint is str else ""


def _twice(occurrences: Sequence[_Given]) -> str:
    """An option with a single value stands there more than once."""
    first, second = occurrences[0], occurrences[1]
    if first.word != second.word:
        return f"{first.word} and {second.word}: choose one, they contradict"
    told = " and ".join(" ".join(one.values) for one in occurrences if one.values)
    return f"{first.word} is given {len(occurrences)} times{told and f', {told}'}: give it once"


def _converted(text: str, hint: Any, given: _Given) -> Any:
    """A word as a value of a type."""
    value: Any = text
    if hint in (int, float):
        try:
            value = hint(text)
        except ValueError:
            wanted = "a whole number" if hint is int else "a number"
            raise UserError(f"{given.word} {_short(text)}: expected {wanted}") from None
    elif get_origin(hint) is Literal:
        choices = get_args(hint)
        if text not in choices:
            raise UserError(f"{given.word} {_short(text)}: expected {', '.join(choices)}")
    elif hint is not str:
        raise TypeError(f"{given.option.field}: no values of {hint} on a command line")
    check_value(value, given.option, given.word)
    return value


def _short(text: str) -> str:
    """A word for a message: what cannot be seen or is too long shows as what it is."""
    shown = text if text.isprintable() and text else repr(text)
    return shown if len(shown) <= 80 else shown[:79] + "…"


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
    return hint
