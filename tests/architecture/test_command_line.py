"""The command line answers at once, loads little, and changes only where somebody meant it to."""

import subprocess
import sys
from resource import RUSAGE_CHILDREN, getrusage

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


def test_help_and_configuration_load_nothing_heavy() -> None:
    """One process prints every command's page: what is not loaded at its end was not on the way."""
    pages = [["--help"], *([command, "--help"] for command in COMMANDS)]
    statement = (
        "import mmdata, pipelines.mmc4.options\n"
        "from mmdata.cli.main import main\n"
        f"for page in {pages}:\n"
        "    try:\n        main(page)\n"
        "    except SystemExit:\n        pass\n"
        f"    heavy = {HEAVY} & set(sys.modules)\n"
        "    assert not heavy, (page, heavy)"
    )
    assert modules_loaded_by(statement) & HEAVY == set()


def test_importing_mmdata_loads_no_other_package_of_ours() -> None:
    ours = {"pipelines", "flamingo", "schemas", "mmdata"}
    assert modules_loaded_by("import mmdata") & ours == {"mmdata"}
    assert modules_loaded_by("import mmdata; assert 'mmdata.cli.main' not in sys.modules")


def cpu_seconds(*arguments: str) -> float:
    """CPU time of a fresh interpreter: the least of three, so that a busy machine counts little."""
    found = []
    for _ in range(3):
        before = getrusage(RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        after = getrusage(RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def test_start_is_quick() -> None:
    """0.13 s for the help when measured on two cores.

    Held as a multiple of what Python itself takes to import parts of its library, so that the
    bound fits a slow machine and a busy one.
    """
    library = cpu_seconds(
        "-c", "import argparse, asyncio, dataclasses, importlib.metadata, json, tomllib, typing"
    )
    assert cpu_seconds("-c", "import mmdata") < library
    assert cpu_seconds("-m", "mmdata.cli", "--help") < 5 * library


def test_commands_and_options_are_those_of_the_snapshot() -> None:
    """`make cli-surface` rewrites the snapshot after a change that was meant."""
    assert surface() == SNAPSHOT.read_text(encoding="utf-8")


def test_values_choices_and_defaults_are_those_of_the_snapshot() -> None:
    """`make cli-surface` rewrites the snapshot after a change that was meant."""
    assert values() == VALUES.read_text(encoding="utf-8")


def test_every_command_is_listed_in_the_help() -> None:
    assert commands() == sorted(COMMANDS)
