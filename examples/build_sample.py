"""Rebuild the sample in `examples/mmc4/` from a checkout of the collection it was taken from.

    python examples/build_sample.py --from DIR [--to examples/mmc4]

DIR holds `mmc4/` (documents, images, IMAGES.tsv), `photos/` (with PHOTOS.tsv), `licenses/` and
PROVENANCE.md. Two shards' documents are taken over unchanged but for the heaviest, so that the
whole stays below 3.8 MB; one small gallery a shard adds the picture formats that the pages lack
(CMYK, EXIF-rotated, transparent, animated). Shard 0 is written with \\u escapes and no final line
loader, shard 1 as raw UTF-8 with one: both occur in the wild. The same DIR gives the same bytes.
"""

import argparse
import csv
import hashlib
import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHARDS = (0, 1)
MAX_TOTAL_BYTES = 3_800_000
MIN_DOCUMENTS = 40
ZIP_TIME = (2023, 6, 1, 0, 0, 0)
IMAGE_COLUMNS = ("shard", "image_name", "repo", "commit", "path", "bytes_are", "file_present")

#: (shard, record) left out for their size: the build guides with the largest photographs.
LEFT_OUT = {(0, 1), (0, 9), (0, 11), (1, 16), (1, 17)}


@dataclass(frozen=True)
class Gallery:
    """A small document of ours: one plain sentence for each photograph.

    Attributes:
        shard: it goes to the end of this one.
        pictures: file in `photos/` -> the sentence that describes it.
        extra_sentences: others, which describe no picture.
    """

    shard: int
    pictures: dict[str, str]
    extra_sentences: tuple[str, ...] = ()


GALLERIES = (
    Gallery(
        shard=0,
        pictures={
            "pillow__hopper_orientation_6.jpg": "A portrait, stored lying on its side.",
            "pillow__pil_sample_cmyk.jpg": "The same sample picture in the colours of a printer.",
            "pillow__transparent.png": "A drawing with a transparent background.",
            "pillow__hopper.gif": "The portrait with 256 colours.",
        },
        extra_sentences=("These pictures test how a program reads image files.",),
    ),
    Gallery(
        shard=1,
        pictures={
            "pillow__chi.gif": "動くアイコン: an animation of 31 frames.",
            "pillow__hopper_orientation_8.jpg": "Un portrait couché, à redresser selon EXIF.",
            "scikitimag__horse.png": "The silhouette of a horse, cut out of its background.",
            "pillow__hopper_orientation_6.webp": "The portrait as WebP, on its side as well.",
        },
    ),
)


def build(source: Path, target: Path) -> None:
    """Write the sample to `target`, replacing what is there."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    provenance: list[dict[str, str]] = []
    for shard in SHARDS:
        lines = _page_lines(source, shard)
        names = {image["image_name"] for line in lines for image in json.loads(line)["image_info"]}
        folder = target / "images" / str(shard)
        folder.mkdir(parents=True)
        rows = [row for row in _table(source / "mmc4/IMAGES.tsv") if row["shard"] == str(shard)]
        rows = [row for row in rows if row["image_name"] in names]
        for row in rows:
            if row["file_present"] == "yes":
                name = row["image_name"]
                shutil.copyfile(source / f"mmc4/images/{shard}/{name}", folder / name)
        for gallery in GALLERIES:
            if gallery.shard == shard:
                document, more = _gallery(gallery, source, folder)
                lines.append(json.dumps(document))
                rows += more
        _write_zip(target, shard, lines)
        provenance += sorted(rows, key=lambda row: row["image_name"])
    _write_table(target / "IMAGES.tsv", provenance)
    _write_provenance(source, target, provenance)
    _check(target)


def _page_lines(source: Path, shard: int) -> list[str]:
    """The documents of a source shard, less those left out."""
    with zipfile.ZipFile(source / f"mmc4/docs_no_face_shard_{shard}_v2.jsonl.zip") as archive:
        text = archive.read(archive.namelist()[0]).decode("utf-8")
    records = [line for line in text.split("\n") if line.strip()]
    return [line for at, line in enumerate(records) if (shard, at) not in LEFT_OUT]


def _gallery(
    gallery: Gallery, source: Path, folder: Path
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """A gallery's document and its pictures' rows of provenance; copies the pictures."""
    photos = {row["file"]: row for row in _table(source / "photos/PHOTOS.tsv")}
    sentences = [*gallery.pictures.values(), *gallery.extra_sentences]
    infos, matrix, rows = [], [], []
    for at, file in enumerate(gallery.pictures):
        photo = photos[file]
        place = f"{photo['repo']}/{photo['path']}"
        name = hashlib.sha1(place.encode()).hexdigest()[:12] + Path(file).suffix
        shutil.copyfile(source / "photos" / file, folder / name)
        row = [
            _similarity(name, column, described=column == at) for column in range(len(sentences))
        ]
        matrix.append(row)
        infos.append(
            {
                "image_name": name,
                "raw_url": f"https://github.com/{photo['repo']}/blob/{photo['commit']}/{photo['path']}",
                "matched_text_index": at,
                "matched_sim": row[at],
                "face_detections": None,
            }
        )
        rows.append(
            {column: photo.get(column, "") for column in IMAGE_COLUMNS}
            | {"shard": str(gallery.shard), "image_name": name, "file_present": "yes"}
            | {"bytes_are": photo["note"] or "original"}
        )
    first = photos[next(iter(gallery.pictures))]
    document = {
        "image_info": infos,
        "text_list": sentences,
        "similarity_matrix": matrix,
        "url": f"https://github.com/{first['repo']}/tree/{first['commit']}#gallery-{gallery.shard}",
        "could_have_url_duplicate": 0,
    }
    return document, rows


def _similarity(image: str, sentence: int, *, described: bool) -> float:
    """A stand-in for CLIP's cosine: 0.32 where the sentence describes the image, else 0.16."""
    digest = hashlib.sha1(f"{image}/{sentence}".encode()).digest()
    jitter = (int.from_bytes(digest[:4], "big") / 2**32 - 0.5) * 0.02
    return round((0.32 if described else 0.16) + jitter, 6)


def _write_zip(target: Path, shard: int, lines: list[str]) -> None:
    """The documents as MMC4 ships them: one .jsonl in a zip, with a fixed time."""
    if shard == SHARDS[-1]:
        lines = [json.dumps(json.loads(line), ensure_ascii=False) for line in lines]
        text = "\n".join(lines) + "\n"
    else:
        text = "\n".join(lines)
    stem = f"docs_no_face_shard_{shard}_v2.jsonl"
    entry = zipfile.ZipInfo(stem, date_time=ZIP_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    with zipfile.ZipFile(target / f"{stem}.zip", "w") as archive:
        archive.writestr(entry, text.encode("utf-8"), compresslevel=9)


def _write_provenance(source: Path, target: Path, rows: list[dict[str, str]]) -> None:
    """PROVENANCE.md with the sources that are really used, and their licence texts."""
    used = {(row["repo"], row["commit"]) for row in rows}
    table, licences = [], set()
    for line in (source / "PROVENANCE.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and tuple(cells[:2]) in used:
            used.discard((cells[0], cells[1]))
            table.append("| " + " | ".join(cells[:4]) + " |")
            licences.add(cells[3])
    if used:
        raise SystemExit(f"no licence is stated for {sorted(used)}")
    folder = target / "licenses"
    folder.mkdir()
    for licence in licences:
        shutil.copyfile(source / licence, folder / Path(licence).name)
    text = (Path(__file__).parent / "provenance_template.md").read_text(encoding="utf-8")
    (target / "PROVENANCE.md").write_text(
        text.replace("{sources}", "\n".join(sorted(table))), encoding="utf-8"
    )


def _table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _write_table(path: Path, rows: list[dict[str, str]]) -> None:
    lines = ["\t".join(IMAGE_COLUMNS)]
    lines += ["\t".join(row[column] for column in IMAGE_COLUMNS) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _check(target: Path) -> None:
    """Refuse a sample that is too large or too small, and say what it holds."""
    total = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    documents = 0
    for path in target.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            text = archive.read(archive.namelist()[0]).decode("utf-8")
            documents += sum(bool(line) for line in text.split("\n"))
    images = sum(path.is_file() for path in (target / "images").rglob("*"))
    if total > MAX_TOTAL_BYTES or documents < MIN_DOCUMENTS:
        raise SystemExit(f"{documents} documents in {total} bytes: outside the limits")
    print(f"{documents} documents, {images} images, {total} bytes in all")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--from", dest="source", type=Path, required=True, metavar="DIR")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "mmc4", metavar="DIR")
    options = parser.parse_args()
    build(options.source, options.to)


if __name__ == "__main__":
    main()
