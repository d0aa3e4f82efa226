"""How much memory a worker takes on the largest images and documents that it is promised to hold.

    python -m benchmarks.memory [--folder .bench]

Photographs of 24 megapixels, put together from the sample's and encoded in the ways that cost
most, and a document of 64 MiB of images that ends with the costliest. One real Ray worker converts
all of them, each document twice; its high-water mark (from /proc) is the gate. Beside it stands
what each kind takes alone, in a fresh process without Ray.
"""

import argparse
import json
import os
import shutil
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.gates import Gate, print_gates
from benchmarks.make_corpus import photographs
from benchmarks.processes import peak_bytes, watch
from benchmarks.resize import mosaic
from mmdata.images import ImagePolicy, prepare_image

SIZE = (6000, 4000)
AIM_MIB = 600
DOCUMENT_BYTES = 64 * 2**20
COSTLIEST = "webp-lossless"
_ROTATED = Image.Exif()
_ROTATED[0x0112] = 6
#: (mode, format, options of Pillow's save)
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jpeg": ("RGB", "JPEG", {"quality": 92}),
    "jpeg-progressive": ("RGB", "JPEG", {"quality": 92, "progressive": True}),
    "jpeg-rotated": ("RGB", "JPEG", {"quality": 92, "exif": _ROTATED}),
    "jpeg-cmyk": ("CMYK", "JPEG", {"quality": 92}),
    "png": ("RGB", "PNG", {"compress_level": 1}),
    "png-alpha": ("RGBA", "PNG", {"compress_level": 1}),
    "png-16-bit": ("I;16", "PNG", {"compress_level": 1}),
    "webp": ("RGB", "WEBP", {"quality": 80, "method": 0}),
    "webp-alpha": ("RGBA", "WEBP", {"quality": 80, "method": 0}),
    COSTLIEST: ("RGB", "WEBP", {"lossless": True, "quality": 0, "method": 0}),
}


def make_images(folder: Path) -> dict[str, Path]:
    """A file of each kind, made once."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {kind: folder / f"{kind}.{KINDS[kind][1].lower()}" for kind in KINDS}
    if all(path.exists() for path in paths.values()):
        return paths
    sheet = mosaic(photographs(Path("examples/mmc4").resolve()), 1).resize(SIZE)
    for kind, path in paths.items():
        mode, name, options = KINDS[kind]
        out = BytesIO()
        _as_mode(sheet, mode).save(out, name, **options)
        path.write_bytes(out.getvalue())
    return paths


def _as_mode(sheet: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(sheet.getchannel(1)).astype(np.uint16) * 257)
    if mode == "RGBA":
        sheet = sheet.copy()
        sheet.putalpha(sheet.getchannel(0))
        return sheet
    return sheet.convert(mode)


def make_corpus(folder: Path, paths: dict[str, Path]) -> None:
    """A document of one image of each kind, and one of 64 MiB of images, the costliest last."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    for path in paths.values():
        os.link(path, folder / "images" / path.name)
    last, filler = paths[COSTLIEST], paths["jpeg"]
    copies = (DOCUMENT_BYTES - last.stat().st_size) // filler.stat().st_size
    documents = [[path.name] for path in paths.values()] + [[filler.name] * copies + [last.name]]
    lines = [json.dumps(_record(names)) for names in documents * 2]
    (folder / "docs.jsonl").write_text("\n".join(lines), encoding="utf-8")


def _record(names: list[str]) -> dict[str, Any]:
    return {
        "text_list": ["A sentence."],
        "image_info": [{"image_name": name} for name in names],
        "similarity_matrix": [[0.25]] * len(names),
    }


def _alone(path: Path) -> None:
    """Prepare one image, in this process, and print its high-water mark."""
    prepared = prepare_image(path.read_bytes(), ImagePolicy())
    if prepared.width * prepared.height != SIZE[0] * SIZE[1]:
        raise SystemExit(f"{path}: came out as {prepared.width} x {prepared.height} px")
    print(peak_bytes())


def bench(folder: Path) -> list[Gate]:
    """Measure, and print the table."""
    work = folder / "memory"
    paths = make_images(work / "pictures")
    print(
        f"images of 24 megapixels, each in a process of its own\n{'':<20}{'MB':>8}{'peak MiB':>10}"
    )
    for kind, path in paths.items():
        command = [sys.executable, "-m", "benchmarks.memory", "--measure", str(path)]
        peak = int(watch(command).output.split()[-1])
        print(f"{kind:<20}{path.stat().st_size / 1e6:>8.1f}{peak / 2**20:>10.0f}", flush=True)
    make_corpus(work / "corpus", paths)
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "mmdata.cli", "convert-mmc4", str(work / "corpus")]
    command += ["--images", str(work / "corpus" / "images"), "--output", str(out)]
    family = watch([*command, "--workers", "1"])
    totals = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["totals"]
    if totals["documents"] != 2 * (len(KINDS) + 1) or totals["images_dropped"]:
        raise SystemExit(f"the conversion dropped something: {totals}")
    shutil.rmtree(out)
    peak = max(worker.peak_bytes for worker in family.workers())
    name = "memory of a Ray worker, images of 24 megapixels, documents of 64 MiB"
    return [Gate(name, peak / 2**20, AIM_MIB, at_most=True, unit=" MiB")]


def main() -> None:
    """The command line: the table, or (in a process of its own) one measurement."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--folder", type=Path, default=Path(os.environ.get("MMDATA_BENCH_DIR", ".bench"))
    )
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        _alone(options.measure)
    else:
        print_gates(bench(options.folder.resolve()))


if __name__ == "__main__":
    main()
