"""Write an MMC4-shaped corpus of any size, made from a few real photographs and sentences.

    python -m benchmarks.make_corpus OUT --docs 2000 [--shards 4] [--seed 1] [--sample DIR]

OUT gets `docs_no_face_shard_{k}_v2.jsonl.zip` and `images/{k}/`, as MMC4 and its downloader leave
them. A document has 1 + negative-binomial images (mean 5.7, at most 60) and log-normal sentences
(mean 22, at most 200), so that some have more images than sentences. Pictures are crops of the
sample's photographs, flipped, scaled and encoded anew: 20-200 kB, nearly all JPEG, 15% of these
progressive, no two alike. Similarities are made up (one soft peak an image), the assignment is
MMC4's. A document depends on (seed, its number) alone; the bytes of pictures also on the versions
of the codecs. Costs about 60 ms a document and core, and 0.4 MB on disk.
"""

import argparse
import json
import os
import zipfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from mmdata.alignment import assign

MIN_BYTES, MAX_BYTES = 20_000, 200_000
FORMATS = {"jpg": 0.92, "webp": 0.04, "png": 0.03, "gif": 0.01}
PROGRESSIVE_SHARE = 0.15
MIN_SIDE_PX = 280
MAX_PHOTOGRAPHS = 60
ZIP_TIME = (2023, 6, 1, 0, 0, 0)


@dataclass(frozen=True)
class ShardJob:
    """One shard to write: documents `first` to `last` (exclusive)."""

    sample: Path
    out: Path
    seed: int
    shard: int
    first: int
    last: int


def make_corpus(
    out: Path, *, docs: int, shards: int, seed: int, sample: Path, jobs: int | None = None
) -> dict[str, int]:
    """Write the corpus; returns how many documents, images and image bytes there are."""
    cuts = [docs * shard // shards for shard in range(shards + 1)]
    todo = [
        ShardJob(sample, out, seed, shard, cuts[shard], cuts[shard + 1]) for shard in range(shards)
    ]
    with ProcessPoolExecutor(jobs or os.cpu_count()) as pool:
        written = list(pool.map(_write_shard, todo))
    return {
        "documents": docs,
        "images": sum(images for images, _ in written),
        "image_bytes": sum(size for _, size in written),
    }


def _write_shard(job: ShardJob) -> tuple[int, int]:
    """One shard's documents and pictures; returns their number and bytes."""
    folder = job.out / "images" / str(job.shard)
    folder.mkdir(parents=True, exist_ok=True)
    lines, num_images, num_bytes = [], 0, 0
    for document in range(job.first, job.last):
        rng = np.random.default_rng([job.seed, document])
        names = []
        for _ in range(_num_images(rng)):
            extension, data = _picture(photographs(job.sample), rng)
            names.append(f"{document:06x}{len(names):06x}.{extension}")
            (folder / names[-1]).write_bytes(data)
            num_bytes += len(data)
        num_images += len(names)
        lines.append(json.dumps(_document(document, names, _sentences(job.sample), rng)))
    stem = f"docs_no_face_shard_{job.shard}_v2.jsonl"
    with zipfile.ZipFile(job.out / f"{stem}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(stem, ZIP_TIME), "\n".join(lines), zipfile.ZIP_DEFLATED)
    return num_images, num_bytes


def _num_images(rng: np.random.Generator) -> int:
    """1 + negative binomial (a Poisson of gamma-distributed rate) of mean 4.75."""
    return min(60, 1 + int(rng.poisson(rng.gamma(0.9, 4.75 / 0.9))))


def _document(
    number: int, names: list[str], sentences: list[str], rng: np.random.Generator
) -> dict[str, Any]:
    """An MMC4 record."""
    num_texts = int(np.clip(round(rng.lognormal(np.log(22) - 0.32, 0.8)), 1, 200))
    start = int(rng.integers(len(sentences)))
    texts = [sentences[(start + at) % len(sentences)] for at in range(num_texts)]
    matrix = rng.normal(0.19, 0.02, (len(names), num_texts))
    matrix[np.arange(len(names)), rng.integers(num_texts, size=len(names))] += 0.07
    matrix = matrix.clip(0.1, 0.4).astype(np.float32).astype(np.float64)
    page = f"http://example.org/{number}"
    infos = [
        {
            "image_name": name,
            "raw_url": f"{page}/{name}",
            "matched_text_index": column,
            "matched_sim": float(row[column]),
            "face_detections": None,
        }
        for name, row, column in zip(names, matrix, assign(matrix), strict=True)
    ]
    return {
        "image_info": infos,
        "text_list": texts,
        "similarity_matrix": matrix.tolist(),
        "url": f"{page}.html",
        "could_have_url_duplicate": 0,
    }


def _picture(photographs: list[Image.Image], rng: np.random.Generator) -> tuple[str, bytes]:
    """(extension, bytes) of a picture that no other call makes."""
    extension = str(rng.choice(list(FORMATS), p=list(FORMATS.values())))
    photograph = photographs[int(rng.integers(len(photographs)))]
    share = rng.uniform(0.6, 1.0)
    width, height = (max(64, int(side * share)) for side in photograph.size)
    left = int(rng.integers(photograph.width - width + 1))
    top = int(rng.integers(photograph.height - height + 1))
    image = photograph.crop((left, top, left + width, top + height))
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    small = extension in ("png", "gif")
    side = rng.integers(180, 330) if small else np.clip(rng.lognormal(6.5, 0.25), 300, 800)
    quality, progressive = int(rng.integers(75, 96)), bool(rng.random() < PROGRESSIVE_SHARE)
    for _ in range(4):
        scale = float(side) / max(image.size)
        sized = image.resize([max(8, round(edge * scale)) for edge in image.size])
        data = _encode(sized, extension, quality, progressive=progressive)
        if len(data) > MAX_BYTES:
            side, quality = side * 0.8, quality - 5
        elif len(data) < MIN_BYTES and not small:
            side, quality = side * 1.3, min(96, quality + 4)
        else:
            break
    return extension, data


def _encode(image: Image.Image, extension: str, quality: int, *, progressive: bool) -> bytes:
    out = BytesIO()
    if extension == "jpg":
        image.save(out, "JPEG", quality=quality, progressive=progressive)
    elif extension == "webp":
        image.save(out, "WEBP", quality=quality, method=2)
    elif extension == "png":
        image.save(out, "PNG", compress_level=4)
    else:
        image.convert("P", palette=Image.Palette.ADAPTIVE).save(out, "GIF")
    return out.getvalue()


@lru_cache(maxsize=1)
def photographs(sample: Path) -> list[Image.Image]:
    """The sample's photographs, upright, RGB, each once."""
    found: dict[str, Image.Image] = {}
    for path in sorted(sample.glob("images/*/*")):
        if path.suffix not in (".jpg", ".jpeg", ".webp") or path.name in found:
            continue
        with Image.open(path) as image:
            if min(image.size) >= MIN_SIDE_PX:
                found[path.name] = ImageOps.exif_transpose(image).convert("RGB")
        if len(found) == MAX_PHOTOGRAPHS:
            break
    if not found:
        raise SystemExit(f"{sample}: no photographs of {MIN_SIDE_PX} pixels and more")
    return list(found.values())


@lru_cache(maxsize=1)
def _sentences(sample: Path) -> list[str]:
    """All sentences of the sample's documents, in order."""
    found: list[str] = []
    for path in sorted(sample.glob("*.jsonl.zip")):
        with zipfile.ZipFile(path) as archive:
            for line in archive.read(archive.namelist()[0]).decode("utf-8").split("\n"):
                found += json.loads(line)["text_list"] if line.strip() else []
    if not found:
        raise SystemExit(f"{sample}: no documents")
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--docs", type=int, required=True)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sample", type=Path, default=Path("examples/mmc4"))
    parser.add_argument("--jobs", type=int, help="processes; one shard is one task")
    print(make_corpus(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
