"""What `mmdata COMMAND --help` shows: boxes that have names, and texts that can be read alone."""

import re
from dataclasses import MISSING, fields
from typing import Any

import pytest

from mmdata.cli import main as cli
from mmdata.cli.arguments import options_of, read_arguments
from mmdata.cli.help_pages import options_page, sections_of, texts_of

FLAGS = [
    pytest.param(command, id=command)
    for command, (kind, _) in cli.COMMANDS.items()
    if any(option.hint is bool for option in options_of(kind))
]
TEXTS = [
    pytest.param(text, id=f"{command} {name}")
    for command, (kind, _) in cli.COMMANDS.items()
    for name, text in texts_of(kind).items()
]
#: An option at the start of its line, with its other form behind it.
_SHOWN = re.compile(r"^[│|] (--[a-z][a-z0-9-]*)(?:, (--no-[a-z0-9-]+))?[ \n]", re.MULTILINE)
_TITLE = re.compile(r"^╭─ ?(.*?) ?─*╮$", re.MULTILINE)
#: What can be understood only by who has read another line.
_LEANING = re.compile(r"Of |The same|As |With |Its |Their |Those |Likewise|Also for ")
#: A section that has more is not seen at a glance.
MOST_OPTIONS = 16


def shown(command: str, defaults: dict[str, Any]) -> str:
    return options_page(command, cli.COMMANDS[command][0], defaults)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_options_stand_in_named_sections(command: str) -> None:
    kind = cli.COMMANDS[command][0]
    sections = sections_of(kind)
    assert _TITLE.findall(shown(command, {})) == list(sections)
    assert all(re.fullmatch(r"[A-Z][A-Za-z ]+", title) for title in sections)
    names = [name for section in sections.values() for name in section]
    assert sorted(names) == sorted(column.name for column in fields(kind))
    assert max(map(len, sections.values())) <= MOST_OPTIONS


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_what_a_command_needs_comes_first(command: str) -> None:
    kind = cli.COMMANDS[command][0]
    needed = {column.name for column in fields(kind) if column.default is MISSING}
    has_needed = [not needed.isdisjoint(names) for names in sections_of(kind).values()]
    assert has_needed == sorted(has_needed, reverse=True)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_can_be_read_alone(text: str) -> None:
    assert not _LEANING.match(text)
    assert len(text.split()) >= 3
    assert text.endswith((".", ")"))


@pytest.mark.parametrize("columns", ["50", "80", "200"])
@pytest.mark.parametrize("command", cli.COMMANDS)
def test_a_page_has_all_of_every_text_and_fits_the_eye(
    command: str, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    page = shown(command, {})
    boxes = [line for line in page.splitlines() if line[:1] in ("│", "╭", "╰")]
    assert {len(line) for line in boxes if "{" not in line} == {min(int(columns), 100)}
    words = " ".join(line[2:-2] for line in boxes).split()
    for name, text in texts_of(cli.COMMANDS[command][0]).items():
        assert text.split()[-1] in words, name


@pytest.mark.parametrize("value", [None, True, False])
@pytest.mark.parametrize("command", FLAGS)
def test_a_text_stands_beside_the_form_that_it_is_about(command: str, value: bool | None) -> None:
    """Texts say what is so when a flag is on: `--no-x` never stands alone beside one.

    Args:
        value: of all flags in a --config file; None: without one.
    """
    kind = cli.COMMANDS[command][0]
    flags = [option for option in options_of(kind) if option.hint is bool]
    defaults = {flag.field: value for flag in flags} if value is not None else {}
    forms = dict(_SHOWN.findall(shown(command, defaults)))
    own = {column.name: column.default for column in fields(kind)}
    for flag in flags:
        on = defaults.get(flag.field, own[flag.field])
        assert forms[flag.name] == ("" if on is False else f"--no-{flag.name[2:]}")
    assert not [form for form in forms if form.startswith("--no-")]


@pytest.mark.parametrize("command", FLAGS)
def test_each_flag_has_two_forms_that_mean_what_they_say(command: str) -> None:
    kind = cli.COMMANDS[command][0]
    for option in options_of(kind):
        if option.hint is bool:
            for word, value in ((option.name, True), (f"--no-{option.name[2:]}", False)):
                assert read_arguments(command, kind, [word]) == {option.field: value}


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_what_a_command_cannot_do_without_is_marked(command: str) -> None:
    kind = cli.COMMANDS[command][0]
    needed = sum(column.default is MISSING for column in fields(kind))
    assert shown(command, {}).count("(required)") == needed


def test_values_of_a_file_are_shown_as_the_defaults() -> None:
    page = shown("convert-mmc4", {"max_side": 336, "split_by": "meta.subject"})
    assert "(default: 336)" in page
    assert "(default: meta.subject)" in page


def test_a_page_has_plain_lines_where_the_terminal_has_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Ascii:
        encoding = "ascii"

    monkeypatch.setattr("sys.stdout", Ascii())
    page = shown("show", {})
    monkeypatch.undo()
    assert page.isascii()
    assert "\n+- Samples ---" in page
