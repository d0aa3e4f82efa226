"""The wheel holds the four packages and the JSON Schemas, and nothing else."""

import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"flamingo", "mmdata", "pipelines", "schemas"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("mmdata-*.whl")
    return zipfile.ZipFile(path)


def test_four_packages_and_their_metadata_are_at_the_top(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    (metadata,) = {top for top in tops if top.endswith(".dist-info")}
    assert tops - {metadata} == PACKAGES
    assert f"{metadata}/licenses/LICENSE" in wheel.namelist()


def test_every_source_file_is_in_it(wheel: zipfile.ZipFile) -> None:
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".json", ".typed", ".css", ".js", ".yaml")
    }
    inside = {name for name in wheel.namelist() if name.partition("/")[0] in PACKAGES}
    assert inside == sources
    assert {name for name in inside if name.startswith("schemas/json/")} != set()


def test_metadata_says_what_the_project_promises(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(wheel.read(name).decode("utf-8"))
    assert metadata["Name"] == "mmdata"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    extras = {
        *("all", "clip", "dev", "download", "forecast", "gs", "hf", "lora", "nvml", "s3"),
        *("tensorboard", "torchao", "train", "wandb"),
    }
    assert set(metadata.get_all("Provides-Extra", [])) == extras
    base = {
        re.split("[<>=]", requirement)[0]
        for requirement in metadata.get_all("Requires-Dist", [])
        if "extra ==" not in requirement
    }
    assert base == {
        *("fsspec", "msgspec", "numpy", "pillow", "pyarrow", "pybase64", "pyyaml"),
        *("ray", "rich", "scipy", "simplejpeg", "tqdm"),
    }


def test_the_command_is_installed(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "mmdata = mmdata.cli.main:main" in wheel.read(name).decode("utf-8")
