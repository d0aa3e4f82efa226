"""The rules on who may import whom (pyproject.toml, import-linter) hold, and have teeth."""

import shutil
import subprocess
import sys
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


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("mmdata/alignment.py", "import pipelines.engine.options", "Imports point downwards"),
        ("mmdata/images/policy.py", "import mmdata.validation", "Imports point downwards"),
        ("schemas/document.py", "import mmdata.errors", "Imports point downwards"),
        ("pipelines/engine/options.py", "import flamingo", "Imports point downwards"),
        ("flamingo/__init__.py", "import pipelines.engine.options", "Imports point downwards"),
        ("mmdata/unheard_of.py", "", "Every folder of the core has a layer"),
        ("flamingo/data/mix.py", "import flamingo.parallel", "The trainer's parts point downwards"),
        (
            "pipelines/custom/run.py",
            "import pipelines.mmc4.run",
            "A command's jobs stand on what all share",
        ),
        ("pipelines/engine/events.py", "import pipelines.clip", "A command's jobs stand on"),
        ("mmdata/__init__.py", "import mmdata.cli.main", "Importing mmdata loads no command"),
        ("schemas/document.py", "import numpy", "The contract needs only msgspec"),
        ("mmdata/alignment.py", "import torch", "The core knows no Ray and no torch"),
        ("pipelines/conversion/run.py", "import ray", "Ray is the session's and its actors' alone"),
        ("flamingo/__init__.py", "import ray", "The trainer knows no Ray"),
        ("pipelines/mmc4/options.py", "import numpy", "Configuration needs the standard library"),
    ],
)
def test_a_contract_is_seen_to_break(tmp_path: Path, file: str, line: str, contract: str) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    with open(tmp_path / file, "a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    broken = [row for row in done.stdout.splitlines() if " BROKEN" in row]
    assert [row for row in broken if row.startswith(contract)] != []
