"""webdataset 1.x reads our shards, from an environment of its own: img2dataset pins < 0.3."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmdata.shards.reader import ShardReader
from tests.shard_factory import make_dataset, make_pairs

REQUIREMENTS = Path(__file__).with_name("webdataset1.txt")
READ = """
import hashlib, json, sys
import webdataset
assert webdataset.__version__.startswith("1."), webdataset.__version__
members = {}
for sample in webdataset.WebDataset(sys.argv[1], shardshuffle=False):
    for name, data in sample.items():
        if not name.startswith("__"):
            members[f"{sample['__key__']}.{name}"] = hashlib.sha256(data).hexdigest()
print(json.dumps(members))
"""
pytestmark = [pytest.mark.slow, pytest.mark.matrix]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with webdataset 1.x; skipped where it cannot be had."""
    folder = tmp_path_factory.mktemp("webdataset1") / "env"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    interpreter = folder / "bin" / "python"
    install = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*install, "-r", str(REQUIREMENTS)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"webdataset 1.x cannot be installed here: {done.stderr.strip()[-300:]}")
    return interpreter


def read(python: Path, pattern: str) -> dict[str, str]:
    command = [str(python), "-c", READ, pattern]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    members: dict[str, str] = json.loads(done.stdout)
    return members


def expected(folder: Path) -> dict[str, str]:
    members = {}
    for path in sorted(folder.glob("*.tar")):
        with ShardReader(path) as reader:
            for sample in reader:
                for kind, data in sample.members.items():
                    members[f"{sample.key}.{kind}"] = hashlib.sha256(data).hexdigest()
    return members


def test_documents(python: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path)
    found = read(python, str(tmp_path / "{000000000..000000001}.tar"))
    assert found == expected(tmp_path)
    assert len(found) == 6


def test_pairs(python: Path, tmp_path: Path) -> None:
    path = make_pairs(tmp_path)
    found = read(python, str(path))
    assert found == expected(tmp_path)
    assert len(found) == 9
