"""The environment of `make test-latest`: what is taken over, what is needed, what is warned of."""

import os
import subprocess
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests import newest

ANSWER = """\
pillow (14.1.0)
Available versions: 14.1.0, 14.0.0, 13.2.1, 13.2.0, 13.0.0, no-version
  INSTALLED: 13.0.0
  LATEST:    14.1.0
"""


def warnings(bounds: str, installed: str, answer: str = ANSWER) -> list[str]:
    versions = newest.versions_in(answer)
    return newest.warnings_of(Requirement(f"pillow{bounds}"), Version(installed), versions)


def test_a_release_beyond_the_bounds_is_a_warning() -> None:
    (warning,) = warnings(">=11,<14", "13.2.1")
    words = "is out, beyond the bounds of pyproject.toml (<14,>=11): try it, and raise them"
    assert warning == f"pillow 14.1.0 {words}"


def test_a_version_that_another_package_keeps_away_is_a_warning() -> None:
    (warning,) = warnings(">=11,<15", "13.0.0")
    assert warning == "pillow 14.1.0 is allowed, but another package holds it at 13.0.0"


def test_the_newest_that_there_is_needs_no_words() -> None:
    assert warnings(">=11,<15", "14.1.0") == []


def test_an_answer_that_says_nothing_is_none() -> None:
    assert newest.versions_in("ERROR: No matching distribution found for x\n") == []
    assert warnings(">=11,<15", "13.0.0", "") == []


@pytest.mark.parametrize("trouble", ["offline", "slow"])
def test_without_an_answer_it_says_so_and_does_not_fail(
    trouble: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], **more: object) -> "subprocess.CompletedProcess[str]":
        if trouble == "slow":
            raise subprocess.TimeoutExpired(command, 60)
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no network")

    monkeypatch.setattr(newest, "wanted", lambda: [Requirement("numpy<3"), Requirement("ray<3")])
    monkeypatch.setattr(newest.subprocess, "run", run)
    assert newest.tell() == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "WARNING: pip could not tell the newest versions of: numpy, ray"


def test_once_it_is_there_a_registry_that_does_not_answer_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(newest.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(newest, "link_large", lambda source, target: set())
    failed = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(newest.subprocess, "run", lambda *_, **__: failed)
    assert newest.install() == 1
    (tmp_path / ".installed-latest").touch()
    assert newest.install() == 0
    assert "WARNING: pip did not bring newer versions" in capsys.readouterr().out


def test_it_is_made_for_the_bounds_of_the_project() -> None:
    wanted = {one.name: one for one in newest.wanted()}
    assert {"numpy", "torch", "transformers", "ray", "pytest"} <= set(wanted)
    assert "img2dataset" not in wanted
    assert all(any(x.operator == "<" for x in one.specifier) for one in wanted.values())


def test_what_is_needed_is_found_through_extras_and_markers() -> None:
    there = {canonicalize_name(d.metadata["Name"]): d for d in metadata.distributions()}
    found = newest.needed([Requirement("s3fs")], there)
    assert {"s3fs", "aiobotocore", "botocore", "fsspec"} <= found
    assert "pytest" not in found
    assert "joserfc" in newest.needed([Requirement("moto[server]")], there)
    assert "joserfc" not in newest.needed([Requirement("moto")], there)


def install_by_hand(environment: Path) -> metadata.Distribution:
    """A package of one module and one command, as pip leaves it."""
    folder = newest._site_packages(environment)
    script = environment / "bin" / "large"
    files = {
        folder / "large.py": "def main(): print(__file__)\n",
        folder / "large-1.0.dist-info" / "METADATA": "Name: large\nVersion: 1.0\n",
        script: f"#!{environment}/bin/python\nimport large\nlarge.main()\n",
    }
    record = folder / "large-1.0.dist-info" / "RECORD"
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    script.chmod(0o755)
    record.write_text("".join(f"{os.path.relpath(path, folder)},,\n" for path in [*files, record]))
    return metadata.Distribution.at(record.parent)


def test_a_package_is_taken_over_file_by_file_and_works(tmp_path: Path) -> None:
    """Between two real environments; the command names the interpreter of its own."""
    old, new = tmp_path / "old", tmp_path / "new"
    for environment in (old, new):
        venv.create(environment)
    assert newest.link(install_by_hand(old), old, new)
    moved = newest._site_packages(new) / "large.py"
    assert moved.samefile(newest._site_packages(old) / "large.py")
    done = subprocess.run([str(new / "bin" / "large")], capture_output=True, text=True, check=False)
    assert done.stdout == f"{moved}\n", done.stderr
    ask = "from importlib.metadata import version; print(version('large'))"
    python = str(new / "bin" / "python")
    assert subprocess.run([python, "-c", ask], capture_output=True, text=True).stdout == "1.0\n"
