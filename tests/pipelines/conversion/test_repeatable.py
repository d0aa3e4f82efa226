"""What is run twice gives the same bytes in every file, over all inputs that are made to fail.

The two runs are processes with other hash seeds, other places of their objects in memory, at
other times, into folders of other names.
"""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmdata.errors import words_of
from tests.conftest import ROOT
from tests.mmdata.images.samples import tiff

ASSETS = ROOT / "tests" / "assets"
ADDRESS = re.compile(rb"0x[0-9a-f]{8,}")
RUN = """
import contextlib, io, json, os, sys
from mmdata.cli.main import main
codes = []
for number, command in enumerate(json.load(sys.stdin)):
    place = f"{sys.argv[1]}/{number:03d}"
    os.makedirs(place)
    words = [word.replace("OUT", f"{place}/out") for word in command]
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        codes.append(main(words))
print(json.dumps(codes))
"""


def pictures(folder: Path) -> list[str]:
    """Every broken or odd picture of the assets, and forms that no reader knows, under one root."""
    shutil.copytree(ASSETS / "images" / "hostile", folder)
    for dtype in ("int16", "int32", "uint32", "float32", "float64"):
        for channels in (1, 2, 5):
            data = tiff(np.zeros((4, 6, channels), dtype), extra=[2])
            (folder / f"{dtype}-{channels}.tif").write_bytes(data)
    heads = {"jxl": b"\xff\x0a", "heic": b"\0\0\0\x1cftypheic", "avif": b"\0\0\0\x1cftypavif"}
    for name, head in heads.items():
        (folder / f"a.{name}").write_bytes(head + bytes(60))
    return sorted(path.name for path in folder.iterdir() if path.is_file())


COMMON = ["--output", "OUT", "--workers", "0"]


def of_pictures(folder: Path) -> list[list[str]]:
    """One record a picture: converted as they are, and made smaller; and all at once as a pair."""
    lines = [
        {
            "text_list": ["one", "two"],
            "image_info": [{"image_name": name}],
            "similarity_matrix": [[0.5, 0.25]],
        }
        for name in pictures(folder / "pictures")
    ]
    records = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "docs_shard_0_v2.jsonl").write_text(records, encoding="utf-8")
    command = ["convert-mmc4", "docs_shard_0_v2.jsonl", "--images", "pictures", *COMMON]
    return [command, [*command, "--max-side", "40", "--image-format", "webp"]]


def of_tars(folder: Path) -> list[list[str]]:
    """Broken shards, repaired and validated."""
    folder.joinpath("tar").mkdir()
    found = []
    for packed in sorted((ASSETS / "hostile_tar").glob("*.tar.gz")):
        path = f"tar/{packed.name.removesuffix('.gz')}"
        (folder / path).write_bytes(gzip.decompress(packed.read_bytes()))
        found.append(["repair", path, *COMMON])
        found.append(["validate", path, "--workers", "0", "--json", "OUT.json"])
    return found


def of_records(folder: Path) -> list[list[str]]:
    """Broken records and containers, each for itself and all together."""
    for kind in ("mmc4", "conversations"):
        shutil.copytree(ASSETS / f"hostile_{kind}", folder / kind)
    mmc4 = ["--images", "mmc4/images", *COMMON]
    return [
        *(["convert-mmc4", f"mmc4/{path.name}", *mmc4] for path in inputs(folder, "mmc4", "zip")),
        ["convert-mmc4", "mmc4", "--skip-bad-inputs", *mmc4],
        *(
            [
                "convert-custom",
                f"conversations/{path.name}",
                "--image-root",
                "conversations",
                *COMMON,
            ]
            for path in inputs(folder, "conversations", "json")
        ),
    ]


def inputs(folder: Path, kind: str, suffix: str) -> list[Path]:
    """In order."""
    return sorted((folder / kind).glob(f"*.{suffix}"))


def run(folder: Path, commands: list[list[str]], out: str) -> tuple[list[int], dict[str, bytes]]:
    """Exit codes, and every file that was written."""
    environment = os.environ | {"PYTHONHASHSEED": str(len(out)), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, out],
        input=json.dumps(commands), cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    top = folder / out
    files = {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}
    return json.loads(done.stdout.splitlines()[-1]), files


@pytest.mark.parametrize(
    ("made", "num_rejects"),
    [
        pytest.param(of_pictures, 2, marks=pytest.mark.slow),
        pytest.param(of_tars, 5, marks=pytest.mark.matrix),
        pytest.param(of_records, 50, marks=pytest.mark.matrix),
    ],
)
def test_every_file_is_the_same_in_another_process(
    made: Callable[[Path], list[list[str]]], num_rejects: int, tmp_path: Path
) -> None:
    commands = made(tmp_path)
    codes, first = run(tmp_path, commands, "out")
    again, second = run(tmp_path, commands, "another")
    assert codes == again
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []
    rejects = [name for name in first if name.endswith(".rejects.jsonl") and first[name]]
    assert len(rejects) >= num_rejects
    for name in rejects:
        assert not ADDRESS.search(first[name]), name


def test_an_objects_place_in_memory_is_no_part_of_its_words() -> None:
    class Thing:
        pass

    assert words_of(ValueError(f"cannot read {Thing()!r},\n twice")) == "cannot read, twice"
    assert words_of(OSError(f"ssl:{Thing()} [None]")) == "ssl: [None]"
    assert words_of(ValueError("byte 0xff at 0x10")) == "byte 0xff at 0x10"
    assert words_of(RuntimeError()) == "RuntimeError"
