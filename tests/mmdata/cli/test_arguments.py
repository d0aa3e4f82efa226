"""The words behind a command: one value an option, lists as often as one likes, one line if not."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.cli.arguments import Option, check_complete, options_of, read_arguments
from mmdata.cli.main import COMMANDS
from mmdata.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Brew:
    """Options of every kind that there is."""

    beans: tuple[str, ...] = field(metadata={"positional": True})
    cup: str
    grams: int = 18
    heat: float | None = None
    grind: Literal["fine", "coarse"] = "fine"
    milk: bool = False
    lid: bool = True
    spice: tuple[str, ...] = ()
    step: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    pair: tuple[str, str] | None = None
    note: str = ""


def read(*words: str) -> dict[str, Any]:
    return read_arguments("brew", Brew, words)


def refusal(*words: str) -> str:
    with pytest.raises(UserError) as raised:
        read(*words)
    return str(raised.value)


def test_reads_values_of_their_types_wherever_they_stand() -> None:
    assert read("a", "--grams", "20", "b", "--heat=-1e1", "--no-lid", "--milk", "--cup", "-5") == {
        **{"beans": ("a", "b"), "grams": 20, "heat": -10.0, "lid": False, "milk": True},
        "cup": "-5",
    }
    assert read("--pair", "x", "y", "--grind", "coarse") == {"pair": ("x", "y"), "grind": "coarse"}
    assert read("--cup=--odd", "--", "--bean") == {"cup": "--odd", "beans": ("--bean",)}


@pytest.mark.parametrize("words", [["--cup", "a"], ["--cup=a"]])
def test_dashes_and_underscores_are_the_same(words: list[str]) -> None:
    assert read(*words, "--no_lid") == {"cup": "a", "lid": False}


def test_a_list_is_given_behind_one_option_or_behind_several() -> None:
    assert read("--spice", "a", "b", "--milk", "--spice=c")["spice"] == ("a", "b", "c")
    assert read("--step", "a", "bean", "--step", "b") == {"step": ("a", "b"), "beans": ("bean",)}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--grams 1 --grams=2", "--grams is given 2 times, 1 and 2: give it once"),
        ("--milk --milk", "--milk is given 2 times: give it once"),
        ("--lid --no-lid", "--lid and --no-lid: choose one, they contradict"),
        ("--pair a b --pair a b", "--pair is given 2 times, a b and a b: give it once"),
        ("--grams x", "--grams x: expected a whole number"),
        ("--grams 1.5", "--grams 1.5: expected a whole number"),
        ("--heat x", "--heat x: expected a number"),
        ("--heat nan", "--heat nan: expected a finite number"),
        ("--grind odd", "--grind odd: expected fine, coarse"),
        ("--pair a", "--pair: expected 2 values behind it"),
        ("--grams", "--grams: expected a value behind it"),
        ("--grams --milk", "--grams: expected a value behind it"),
        ("--spice", "--spice: expected a value behind it"),
        (
            "--cup --milk",
            "--cup: expected a value behind it (one that begins with a dash: --cup=-…)",
        ),
        ("--cup=", "--cup: expected a value, got an empty text"),
        ("--cup a\0b", "--cup 'a\\x00b': expected a text without NUL"),
        ("--cup \udcff", "--cup '\\udcff': expected UTF-8; rename what is called so"),
        ("--milk=yes", "--milk=yes: takes no value; write --milk or --no-milk"),
        ("--gram 1", "brew: no option --gram; did you mean --grams?"),
        ("-g 1", "brew: no option -g; `mmdata brew --help` lists them"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words: str, said: str) -> None:
    assert refusal(*words.split()) == said


def test_an_empty_text_is_a_value_where_it_is_the_default() -> None:
    assert read("--note", "") == {"note": ""}
    assert refusal("") == "BEANS: expected a value, got an empty text"


def test_says_what_a_command_cannot_do_without() -> None:
    with pytest.raises(UserError, match=r"^brew: expected BEANS and --cup; `mmdata brew --help`"):
        check_complete("brew", Brew, read("--milk"))
    check_complete("brew", Brew, read("a", "--cup", "b"))


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(
    brew=st.builds(
        Brew,
        beans=st.lists(texts, min_size=1).map(tuple),
        cup=texts,
        grams=st.integers(),
        heat=st.floats(allow_nan=False, allow_infinity=False),
        milk=st.booleans(),
        lid=st.booleans(),
        step=st.lists(texts).map(tuple),
        note=st.just("") | texts,
    )
)
def test_any_options_come_back_from_their_words(brew: Brew) -> None:
    given_ = asdict(brew)
    words: list[str] = []
    for option in options_of(Brew):
        value = given_[option.field]
        if option.positional or value in (None, ()):
            continue
        if isinstance(value, bool):
            words.append(option.name if value else f"--no-{option.field}")
            continue
        words += [f"{option.name}={one}" for one in (value if option.is_list else [value])]
    assert Brew(**read(*words, "--", *brew.beans)) == brew


ALL = [
    pytest.param(command, kind, option, id=f"{command} {option.name}")
    for command, (kind, _) in COMMANDS.items()
    for option in options_of(kind)
    if not option.positional
]


def words_for(option: Option) -> list[str]:
    """An option with values of its type."""
    if option.hint is bool:
        return [option.name]
    hint = get_args(option.hint)[0] if get_origin(option.hint) is tuple else option.hint
    value = get_args(hint)[0] if get_origin(hint) is Literal else "7"
    return [option.name, *[value] * (option.values or 1)]


@pytest.mark.parametrize(("command", "kind", "option"), ALL)
def test_every_option_of_every_command_has_one_value_or_is_a_list(
    command: str, kind: type, option: Option
) -> None:
    once = read_arguments(command, kind, words_for(option))
    assert list(once) == [option.field]
    twice = [*words_for(option), *words_for(option)]
    if option.is_list:
        assert read_arguments(command, kind, twice) == {option.field: ("7", "7")}
    else:
        with pytest.raises(UserError, match=f"{option.name} is given 2 times.*: give it once"):
            read_arguments(command, kind, twice)
