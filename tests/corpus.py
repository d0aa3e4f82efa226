"""Small MMC4 inputs for tests, and what comes of converting them.

Index of the factories:

* `picture`: an encoded image, different for every seed (noise, so that it does not compress away).
* `document`, `lines`: an MMC4 record, and records as JSON lines.
* `make_corpus`, `one_file`: a whole input, of N records over K files or as given.
* `pack`: data to a file, zipped, gzipped or plain by its ending.
* `cli`, `run_cli`: the converter as a command (`Corpus.options` as a library call).
* `snapshot`, `documents_of`, `rejects_of`, `manifest_of`: what an output folder holds.
"""

import base64
import gzip
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.mmc4.options import ConvertMmc4

ROOT = Path(__file__).parents[1]
ZIP_TIME = (2023, 6, 1, 0, 0, 0)


def picture(seed: int, *, size: tuple[int, int] = (48, 36), kind: str = "JPEG") -> bytes:
    """An encoded RGB image; every seed gives other bytes."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(noise).save(sink, kind)
    return sink.getvalue()


def document(seed: int, *, images: list[str], sentences: int = 4, **extras: Any) -> dict[str, Any]:
    """An MMC4 record that refers to images by name."""
    rng = random.Random(seed)
    return {
        "text_list": [f"Sentence {k} of document {seed}." for k in range(sentences)],
        "url": f"https://example.org/{seed}",
        "image_info": [
            {
                "image_name": name,
                "raw_url": f"https://example.org/{name}",
                "matched_text_index": 0,
                "matched_sim": 0.2,
                "face_detections": None,
            }
            for name in images
        ],
        "similarity_matrix": [
            [round(rng.uniform(0.1, 0.4), 6) for _ in range(sentences)] for _ in images
        ],
        "could_have_url_duplicate": 0,
        **extras,
    }


def pack(path: Path, data: bytes, member: str | None = None) -> Path:
    """Write data to a file, compressed as its ending says; the same data gives the same bytes."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            name = member or path.name.removesuffix(".zip")
            archive.writestr(zipfile.ZipInfo(name, ZIP_TIME), data, zipfile.ZIP_DEFLATED)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(data, mtime=0))
    elif path.suffix == ".zst":
        path.write_bytes(pa.Codec("zstd").compress(data, asbytes=True))
    else:
        path.write_bytes(data)
    return path


def lines(records: list[Any]) -> bytes:
    """JSON lines of records; bytes are taken over as they are."""
    return b"".join(
        (record if isinstance(record, bytes) else json.dumps(record).encode()) + b"\n"
        for record in records
    )


@dataclass(frozen=True)
class Corpus:
    """An input: MMC4 files and the folder of their images."""

    docs: tuple[str, ...]
    images: str
    num_records: int

    def options(self, output: Path | str, **more: Any) -> ConvertMmc4:
        """The options of a conversion of it, in this process unless told otherwise."""
        given: dict[str, Any] = {
            "docs": self.docs,
            "images": self.images,
            "output": str(output),
            "workers": 0,
        }
        return ConvertMmc4(**(given | more))

    def command(self, output: Path | str, *more: str) -> list[str]:
        """The command line of a conversion of it."""
        return [*cli("convert-mmc4"), *self.docs, "--images", self.images, "--output",
                str(output), *more]  # fmt: skip


def make_corpus(
    folder: Path,
    *,
    records: int = 12,
    files: int = 2,
    images: int = 2,
    suffix: str = ".jsonl.zip",
    size: tuple[int, int] = (48, 36),
) -> Corpus:
    """Records over several files; every 5th lacks an image, every 7th line is broken."""
    docs = []
    for number in range(files):
        found = folder / "images" / str(number)
        found.mkdir(parents=True)
        rows: list[Any] = []
        for place in range(number, records, files):
            names = [f"{place:04d}_{k}.jpg" for k in range(images)]
            for k, name in enumerate(names):
                if not (place % 5 == 4 and k == 0):
                    (found / name).write_bytes(picture(place * 100 + k, size=size))
            broken = place % 7 == 6
            row = document(place, images=names)
            rows.append(json.dumps(row).encode()[:-9] if broken else row)
        path = folder / f"docs_no_face_shard_{number}_v2{suffix}"
        docs.append(str(pack(path, lines(rows))))
    return Corpus(tuple(docs), str(folder / "images"), records)


def one_file(folder: Path, rows: list[Any], pictures: dict[str, bytes] | None = None) -> Corpus:
    """One plain input of the given records; images `ok0.jpg` to `ok3.jpg` unless said."""
    if pictures is None:
        pictures = {f"ok{k}.jpg": picture(k) for k in range(4)}
    found = folder / "images" / "0"
    found.mkdir(parents=True, exist_ok=True)
    for name, data in pictures.items():
        (found / name).write_bytes(data)
    path = pack(folder / "docs_no_face_shard_0_v2.jsonl", lines(rows))
    return Corpus((str(path),), str(folder / "images"), len(rows))


def cli(*arguments: str) -> list[str]:
    """The command line of this checkout."""
    return [sys.executable, "-m", "mmdata.cli", *arguments]


def environment() -> dict[str, str]:
    """The environment of a command of this checkout, from any folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}


def run_cli(command: list[str], **more: Any) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end; nothing of it may look like a crash."""
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=300, check=False, **more
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


def run_here(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run such a command in this process, without the seconds that a start takes."""
    from mmdata.cli.main import main

    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main(command[len(cli()) :])
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def snapshot(output: Path) -> dict[str, str]:
    """sha256 of every file of an output folder, but for the plan (it holds paths and times)."""
    return {
        path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.name != "plan.json"
    }


def documents_of(output: Path) -> dict[str, dict[str, Any]]:
    """Every sample of a folder's shards, by key."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(output.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                found[member.name.removesuffix(".json")] = json.loads(file.read())
    return found


def rejects_of(output: Path) -> list[dict[str, Any]]:
    """The lines of every rejects file."""
    return [
        json.loads(line)
        for path in sorted(output.glob("*.rejects.jsonl"))
        for line in path.read_text().splitlines()
    ]


def manifest_of(output: Path) -> dict[str, Any]:
    """The manifest."""
    manifest: dict[str, Any] = json.loads((output / "manifest.json").read_text())
    return manifest


def image_bytes(info: dict[str, Any]) -> bytes:
    """The file that is inside an image_info of a sample."""
    return base64.b64decode(info["image_base64"], validate=True)


def leftovers(output: Path) -> list[str]:
    """Temporary files in a folder."""
    return sorted(path.name for path in output.glob(".*"))


def check_nothing_half_written(output: Path) -> None:
    """Every sidecar vouches truly for the files beside it."""
    for path in output.glob("[0-9]*.json"):
        sidecar = json.loads(path.read_text())
        for ending, name in ((".tar", "sha256"), (".samples.parquet", "samples_sha256"),
                             (".rejects.jsonl", "rejects_sha256")):  # fmt: skip
            data = path.with_suffix(ending).read_bytes()
            assert hashlib.sha256(data).hexdigest() == sidecar[name]
