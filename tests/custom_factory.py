"""Conversations for tests: records, an input of many of them, and the command that converts it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.custom.options import ConvertCustom
from tests.corpus import cli, pack, picture


def turns(*values: str) -> list[dict[str, str]]:
    """Turns of human and gpt in turn."""
    return [
        {"from": ("human", "gpt")[place % 2], "value": value} for place, value in enumerate(values)
    ]


def record(number: int, images: list[str], *values: str, **more: Any) -> dict[str, Any]:
    """A LLaVA record; without values one question with a placeholder an image, and an answer."""
    tags = "<image>\n" * len(images)
    said = values or (f"{tags}What is number {number}?", f"A picture of noise, {number}.")
    return {"id": f"scan-{number:04d}", "image": images, "conversations": turns(*said), **more}


@dataclass(frozen=True)
class Conversations:
    """Inputs of convert-custom, and the root of their images."""

    inputs: tuple[str, ...]
    root: str

    def options(self, output: Path | str, **more: Any) -> ConvertCustom:
        """The options of a conversion, in this process unless told otherwise."""
        given: dict[str, Any] = {"inputs": self.inputs, "image_root": self.root}
        return ConvertCustom(**(given | {"output": str(output), "workers": 0} | more))

    def command(self, output: Path | str, *more: str) -> list[str]:
        """The command line of a conversion."""
        return [*cli("convert-custom"), *self.inputs, "--image-root", self.root, "--output",
                str(output), *more]  # fmt: skip


def make_conversations(folder: Path, *, records: int = 24, files: int = 2) -> Conversations:
    """Arrays of records with up to three images below `images/`; every 5th lacks one."""
    found = folder / "images" / "ward_07"
    found.mkdir(parents=True)
    inputs = []
    for file in range(files):
        rows = []
        for number in range(file, records, files):
            names = [f"ward_07/scan{number:04d}_{k}.jpg" for k in range(number % 3 + 1)]
            for k, name in enumerate(names):
                if number % 5 != 4 or k:
                    data = picture(number * 10 + k)
                    (folder / "images" / name).write_bytes(data)
            rows.append(record(number, names, patient=f"patient-{number // 3:03d}"))
        path = folder / f"clinic_dump_{file}.json"
        inputs.append(str(pack(path, json.dumps(rows, indent=1).encode())))
    return Conversations(tuple(inputs), str(folder / "images"))


def one_array(folder: Path, *records: Any, name: str = "data.json") -> Conversations:
    """One array of records; images `ok0.jpg` to `ok3.jpg` are below the root."""
    root = folder / "images"
    root.mkdir(parents=True, exist_ok=True)
    for number in range(4):
        (root / f"ok{number}.jpg").write_bytes(picture(number))
    path = pack(folder / name, json.dumps(records).encode())
    return Conversations((str(path),), str(root))
