"""How an extra is installed follows from how this mmdata was; the package index is never named."""

import json
import os
import re
import shlex
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from mmdata import installation
from mmdata.installation import how_to_install

ROOT = Path(__file__).parents[2]


class Recorded:
    """A distribution of which pip wrote down this."""

    def __init__(self, origin: object) -> None:
        self._text = origin if origin is None or isinstance(origin, str) else json.dumps(origin)

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self._text


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """How to install the extra `train`, for what pip wrote down of an installation."""

    def tell(origin: object, code: Path | None = None) -> str:
        monkeypatch.setattr(installation.metadata, "distribution", lambda name: Recorded(origin))
        return how_to_install("train", code=code or tmp_path / "site-packages")

    return tell


def a_checkout(folder: Path, *, constrained: bool = True) -> Path:
    folder.mkdir()
    (folder / "pyproject.toml").write_text("")
    if constrained:
        (folder / "constraints.txt").write_text("")
    return folder


def test_an_editable_checkout(told, tmp_path: Path) -> None:
    checkout = a_checkout(tmp_path / "a checkout")
    origin = {"dir_info": {"editable": True}, "url": checkout.as_uri()}
    command = told(origin, code=checkout)
    assert command == f"pip install -e '{checkout}[train]' -c '{checkout}/constraints.txt'"
    assert shlex.split(command)[3] == f"{checkout}[train]"


def test_a_checkout_that_was_installed_from(told, tmp_path: Path) -> None:
    checkout = a_checkout(tmp_path / "checkout", constrained=False)
    told_words = told({"dir_info": {}, "url": checkout.as_uri()})
    assert told_words == f"pip install '{checkout}[train]'"


def test_a_checkout_that_runs_beside_another_installation(told, tmp_path: Path) -> None:
    """PYTHONPATH leads to it, or nothing is installed: the code that runs is what counts."""
    checkout = a_checkout(tmp_path / "checkout", constrained=False)
    other = a_checkout(tmp_path / "other")
    for origin in ({"dir_info": {"editable": True}, "url": other.as_uri()}, None):
        assert told(origin, code=checkout) == f"pip install -e '{checkout}[train]'"


def test_a_wheel(told, tmp_path: Path) -> None:
    wheel = tmp_path / "mmdata-0.1.0-py3-none-any.whl"
    origin = {"archive_info": {"hash": "sha256=0"}, "url": wheel.as_uri()}
    assert f"({wheel} is not there any more)" in told(origin)
    wheel.touch()
    assert told(origin) == f"pip install '{wheel}[train]'"


def test_the_url_of_a_wheel(told) -> None:
    url = "https://example.org/mmdata-0.1.0-py3-none-any.whl"
    assert told({"archive_info": {}, "url": url}) == f"pip install 'mmdata[train] @ {url}'"


def test_a_commit_under_version_control(told) -> None:
    origin = {
        "url": "https://example.org/mmdata.git",
        "vcs_info": {"vcs": "git", "requested_revision": "main", "commit_id": "0a1b2c"},
    }
    line = "pip install 'mmdata[train] @ git+https://example.org/mmdata.git@0a1b2c"
    assert told(origin) == f"{line}'"
    assert told({**origin, "subdirectory": "sub"}) == f"{line}#subdirectory=sub'"


@pytest.mark.parametrize("origin", [None, "", "no json", "[]", {}])
def test_one_that_is_not_recorded_is_said_in_words(told, origin: object) -> None:
    assert told(origin) == (
        "install its extra 'train' from the checkout or wheel that this mmdata came from, as in "
        "pip install '<path or wheel>[train]' (it is not recorded, and the mmdata of the package "
        "index is another project)"
    )


def test_without_any_metadata_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> None:
        raise installation.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(installation.metadata, "distribution", missing)
    assert "it is not recorded" in how_to_install("train", code=tmp_path)


@pytest.mark.matrix
@pytest.mark.slow
def test_pip_writes_down_what_is_read_here(tmp_path: Path) -> None:
    """A wheel, then the checkout, installed by the real pip; without what they depend on."""
    python = tmp_path / "env" / "bin" / "python"
    venv.create(tmp_path / "env", with_pip=True)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    ask = "from mmdata.installation import how_to_install; print(how_to_install('train'))"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), "-c", ask], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout == f"pip install '{wheel}[train]'\n", done.stderr


#: The extras of ours from an index, where the name is another project's.
FROM_INDEX = re.compile(
    r"pip3? install\s+(?:-\S+\s+)*['\"`]*mmdata\b(?!-)(?!\[[\w,]*\] @)", re.IGNORECASE
)


def test_nobody_is_told_to_install_it_from_an_index() -> None:
    folders = ("mmdata", "pipelines", "flamingo", "schemas", "docs", "examples", "benchmarks")
    files = [path for name in folders for path in (ROOT / name).rglob("*") if path.is_file()]
    telling = [
        str(path.relative_to(ROOT))
        for path in [*files, *ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "pyproject.toml"]
        if path.suffix in ("", ".py", ".md", ".yaml", ".toml", ".sbatch", ".sh")
        and FROM_INDEX.search(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert telling == []
