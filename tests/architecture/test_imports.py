"""The rules on who may import whom (pyproject.toml, import-linter) hold, and have teeth."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("mmdata", "pipelines", "flamingo", "schemas")
RUN = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """import-linter on the packages in a folder, by the rules in its pyproject.toml."""
    return subprocess.run(
        [sys.executable, "-c", RUN, "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )


def test_every_contract_is_kept() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


#: A file of a copy, a line that is added to it, and the start of the contract that this breaks.
BREAKS = [
    ("mmdata/alignment.py", "import pipelines.engine.options", "Imports point downwards"),
    ("mmdata/images/policy.py", "import mmdata.validation", "Imports point downwards"),
    ("schemas/document.py", "import mmdata.errors", "Imports point downwards"),
    ("pipelines/engine/options.py", "import flamingo", "Imports point downwards"),
    ("flamingo/__init__.py", "import pipelines.engine.options", "Imports point downwards"),
    ("mmdata/unheard_of.py", "", "Every folder of the core has a layer"),
    ("flamingo/data/mix.py", "import flamingo.parallel", "The trainer's parts point downwards"),
    (
        "flamingo/models/flamingo/units.py",
        "import flamingo.parallel.world",
        "The trainer's parts point downwards",
    ),
    (
        "flamingo/options/run.py",
        "import flamingo.models.registry",
        "The trainer's parts point downwards",
    ),
    (
        "flamingo/train/build.py",
        "import flamingo.models.flamingo.model",
        "Only the table of families names a family",
    ),
    (
        "mmdata/cli/main.py",
        "import flamingo.models.flamingo.options",
        "Only the table of families names a family",
    ),
    (
        "flamingo/models/family.py",
        "import flamingo.models.flamingo.units",
        "A family of models knows the seam and no other family",
    ),
    ("flamingo/models/unheard_of.py", "", "A family of models knows the seam"),
    ("flamingo/models/flamingo/options.py", "import torch", "Configuration needs the standard"),
    (
        "pipelines/custom/run.py",
        "import pipelines.mmc4.run",
        "A command's jobs stand on what all share",
    ),
    ("pipelines/engine/events.py", "import pipelines.clip", "A command's jobs stand on"),
    (
        "pipelines/conversion/shard_job.py",
        "import pipelines.conversion.run_log",
        "A worker knows nothing of the run",
    ),
    ("mmdata/__init__.py", "import mmdata.cli.main", "Importing mmdata loads no command"),
    ("schemas/document.py", "import numpy", "The contract needs only msgspec"),
    ("mmdata/alignment.py", "import torch", "The core knows no Ray and no torch"),
    ("pipelines/conversion/run.py", "import ray", "Ray is the session's and its actors' alone"),
    ("flamingo/__init__.py", "import ray", "The trainer knows no Ray"),
    ("pipelines/mmc4/options.py", "import numpy", "Configuration needs the standard library"),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What import-linter says of each contract once every line of `BREAKS` is there: one run."""
    copy = tmp_path_factory.mktemp("broken")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package)
    shutil.copyfile(ROOT / "pyproject.toml", copy / "pyproject.toml")
    for file, line, _ in BREAKS:
        with open(copy / file, "a", encoding="utf-8") as source:
            source.write(f"\n{line}\n")
    done = lint(copy)
    assert done.returncode == 1
    parts = re.split(r"^(\S.*)\n-{3,}\n", done.stdout, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize(("file", "line", "contract"), BREAKS)
def test_a_contract_is_seen_to_break(
    broken: dict[str, str], file: str, line: str, contract: str
) -> None:
    said = [text for name, text in broken.items() if name.startswith(contract)]
    assert len(said) == 1
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    chain = f"{module} -> {line.removeprefix('import ')} (l." if line else f"- {module}\n"
    assert chain in said[0]


def test_every_contract_is_broken_once() -> None:
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    names = [one["name"] for one in rules["tool"]["importlinter"]["contracts"]]
    assert [name for name in names if not any(name.startswith(one) for _, _, one in BREAKS)] == []
