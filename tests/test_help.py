"""What `mmdata COMMAND --help` shows is true for the form of an option that is shown."""

import re
from dataclasses import MISSING, fields
from typing import Any

import pytest

from mmdata.cli import main as cli
from mmdata.cli.arguments import options_of, read_arguments
from mmdata.cli.help_pages import show_help, shown_type

FLAGS = [
    pytest.param(command, id=command)
    for command, (kind, _) in cli.COMMANDS.items()
    if any(option.hint is bool for option in options_of(kind))
]
#: An option at the start of its line, with its other form behind it.
_SHOWN = re.compile(r"^[│| ] (--[a-z][a-z0-9-]*)(?:, (--no-[a-z0-9-]+))?[ \n]", re.MULTILINE)


def shown(command: str, capsys: pytest.CaptureFixture[str], defaults: dict[str, Any]) -> str:
    kind = shown_type(cli.COMMANDS[command][0], defaults)
    with pytest.raises(SystemExit) as left:
        show_help({command: kind}, f"mmdata {command}")
    assert left.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("value", [None, True, False])
@pytest.mark.parametrize("command", FLAGS)
def test_a_text_stands_beside_the_form_that_it_is_about(
    command: str,
    value: bool | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Texts say what is so when a flag is on: `--no-x` never stands alone beside one.

    Args:
        value: of all flags in a --config file; None: without one.
    """
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    kind = cli.COMMANDS[command][0]
    flags = [option for option in options_of(kind) if option.hint is bool]
    defaults = {flag.field: value for flag in flags} if value is not None else {}
    forms = dict(_SHOWN.findall(shown(command, capsys, defaults)))
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
def test_what_a_command_cannot_do_without_is_marked(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = cli.COMMANDS[command][0]
    needed = sum(column.default is MISSING for column in fields(kind))
    assert shown(command, capsys, {}).count("(required)") == needed
