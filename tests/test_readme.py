"""The README is true: its commands run, and what it shows of their output is what they print."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: A block behind `<!-- run -->` is a command; the block behind that is part of its output.
BLOCK = re.compile(
    r"<!-- run -->\n```\n(?P<command>.*?)\n```\n```\n(?P<output>.*?)\n```", re.DOTALL
)


def test_the_commands_of_daily_use_print_what_the_readme_shows(tmp_path: Path) -> None:
    blocks = list(BLOCK.finditer((ROOT / "README.md").read_text(encoding="utf-8")))
    assert len(blocks) >= 3
    for link in ("examples", "docs"):
        (tmp_path / link).symlink_to(ROOT / link)
    for block in blocks:
        printed = run(block["command"], tmp_path)
        for line in block["output"].splitlines():
            assert line in printed


def run(command: str, folder: Path) -> str:
    words = shlex.split(command)
    assert words[0] == "mmdata"
    done = subprocess.run(
        [sys.executable, "-m", "mmdata.cli", *words[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "100", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


DOCS = (
    "format",
    "formats",
    "architecture",
    "align",
    "report",
    "rules",
    "repair",
    "cluster",
    "training",
)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{name}.md" for name in DOCS)])
def test_every_link_and_named_file_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    named = re.findall(
        r"`((?:mmdata|flamingo|pipelines|schemas|examples|docs)/[\w/.]+\.\w+)`", text
    )
    for link in links:
        assert ((ROOT / page).parent / link).exists(), link
    for name in named:
        assert (ROOT / name).exists(), name
