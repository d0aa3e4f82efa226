"""The command line answers at once, loads little, and changes only where somebody meant it to."""

import subprocess
import sys
import time
from statistics import median

import pytest

from mmdata.cli.main import COMMANDS
from tests.architecture.surface import SNAPSHOT, VALUES, commands, surface, values

HEAVY = {
    *("numpy", "scipy", "simplejpeg", "PIL", "pyarrow", "pandas", "fsspec", "ray"),
    *("torch", "torchvision", "transformers", "open_clip", "webdataset", "img2dataset"),
}


def modules_loaded_by(statement: str) -> set[str]:
    """Top-level modules in `sys.modules` of a fresh interpreter after a statement."""
    code = (
        f"import sys\n{statement}\n"
        "print('\\n'.join({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stderr.split())


def help_statement(*arguments: str) -> str:
    return (
        "from mmdata.cli.main import main\n"
        f"try:\n    main([{', '.join(map(repr, arguments))}])\n"
        "except SystemExit:\n    pass"
    )


@pytest.mark.parametrize(
    "statement",
    ["import mmdata", "import pipelines.mmc4.options", help_statement("--help")]
    + [help_statement(command, "--help") for command in COMMANDS],
)
def test_help_and_configuration_load_nothing_heavy(statement: str) -> None:
    assert modules_loaded_by(statement) & HEAVY == set()


def test_importing_mmdata_loads_no_other_package_of_ours() -> None:
    ours = {"pipelines", "flamingo", "schemas", "mmdata"}
    assert modules_loaded_by("import mmdata") & ours == {"mmdata"}
    assert modules_loaded_by("import mmdata; assert 'mmdata.cli.main' not in sys.modules")


@pytest.mark.parametrize("arguments", [["-c", "import mmdata"], ["-m", "mmdata.cli", "--help"]])
def test_start_is_quick(arguments: list[str]) -> None:
    """0.13 s when measured on two cores; the bound leaves room for a busy machine."""
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    assert median(seconds) < 1.0


def test_commands_and_options_are_those_of_the_snapshot() -> None:
    """`make cli-surface` rewrites the snapshot after a change that was meant."""
    assert surface() == SNAPSHOT.read_text(encoding="utf-8")


def test_values_choices_and_defaults_are_those_of_the_snapshot() -> None:
    """`make cli-surface` rewrites the snapshot after a change that was meant."""
    assert values() == VALUES.read_text(encoding="utf-8")


def test_every_command_is_listed_in_the_help() -> None:
    assert commands() == sorted(COMMANDS)
