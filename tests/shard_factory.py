"""Factories of small real shards, written from the schemas and not with the writer under test.

    make_image(seed, ...)      bytes of a JPEG, PNG or WebP
    make_document(...)         a valid document of ours, as a dict
    make_tar(members)          a tar as Python's tarfile writes it
    make_dataset(folder, ...)  a whole conversion: tars, samples tables, rejects, sidecars, manifest
    make_pairs(folder)         one shard in the layout of img2dataset

A test damages what it got from here, and `Dataset.sign()` makes the rest agree again where only
the damage itself should be found.
"""

import base64
import hashlib
import io
import json
import random
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.optimize import linear_sum_assignment

ARROW_TYPES = {
    "key": pa.string(),
    "offset": pa.int64(),
    "size": pa.int64(),
    "sha256": pa.string(),
    "source_file": pa.string(),
    "source_member": pa.string(),
    "source_record": pa.int64(),
    "sentences": pa.int32(),
    "text_bytes": pa.int64(),
    "text_sha256": pa.string(),
    "matched": pa.list_(pa.int32()),
    "similarity": pa.list_(pa.float64()),
    "margin": pa.list_(pa.float64()),
    "image_bytes": pa.list_(pa.int64()),
    "width": pa.list_(pa.int32()),
    "height": pa.list_(pa.int32()),
    "format": pa.list_(pa.string()),
    "image_sha256": pa.list_(pa.string()),
    "reencoded": pa.list_(pa.bool_()),
}


#: The one input: file, bytes, records, crc32.
SOURCE = ("docs_shard_0_v2.jsonl.zip", 1, 1, "0")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_image(
    seed: int = 0, *, width: int = 24, height: int = 16, kind: str = "jpeg", **save: Any
) -> bytes:
    """A small picture of noise, so that no two seeds give the same bytes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind.upper(), **save)
    return sink.getvalue()


def make_document(
    seed: int = 0, *, images: int = 2, sentences: int = 3, kinds: tuple[str, ...] = ("jpeg",)
) -> dict[str, Any]:
    """A document that keeps every rule, with an assignment worked out by scipy alone."""
    rng = random.Random(seed)
    matrix = [[round(rng.uniform(0.1, 0.4), 6) for _ in range(sentences)] for _ in range(images)]
    matched = [int(np.argmax(row)) for row in matrix]
    values = np.array(matrix).reshape(images, sentences)
    for row, column in zip(*linear_sum_assignment(values, maximize=True), strict=True):
        matched[row] = int(column)
    order = sorted(range(images), key=lambda image: (matched[image], image))
    listed = []
    for number in order:
        kind = kinds[number % len(kinds)]
        data = make_image(seed * 100 + number, kind=kind)
        listed.append(
            {
                "image_name": f"{seed}_{number}.{kind}",
                "raw_url": f"https://example.org/{seed}_{number}",
                "matched_text_index": matched[number],
                "matched_sim": matrix[number][matched[number]],
                "image_base64": base64.b64encode(data).decode(),
                "width": 24,
                "height": 16,
                "format": kind,
                "sha256": sha256(data),
            }
        )
    return {
        "format_version": "1",
        "text_list": [f"Sentence {number} of page {seed}, é." for number in range(sentences)],
        "image_info": listed,
        "similarity_matrix": [matrix[number] for number in order],
        "similarity_source": "mmc4",
        "alignment": "assigned",
        "url": f"https://example.org/{seed}",
    }


def foreign(document: dict[str, Any]) -> dict[str, Any]:
    """The same document as OpenFlamingo's script would have written it."""
    ours = ("format_version", "similarity_source", "alignment")
    copy = {name: value for name, value in document.items() if name not in ours}
    known = ("image_name", "raw_url", "matched_text_index", "matched_sim", "image_base64")
    copy["image_info"] = [{name: image[name] for name in known} for image in document["image_info"]]
    return copy


def encode(document: dict[str, Any] | bytes) -> bytes:
    if isinstance(document, bytes):
        return document
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def make_tar(members: list[tuple[str, bytes]], *, fill: bool = True, **options: Any) -> bytes:
    """A tar as tarfile writes it; without `fill` it ends right behind its two zero blocks."""
    sink = io.BytesIO()
    with tarfile.open(
        fileobj=sink, mode="w", **({"format": tarfile.USTAR_FORMAT} | options)
    ) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        end = tar.offset
    whole = sink.getvalue()
    return whole if fill else whole[:end] + bytes(1024)


@dataclass
class Dataset:
    """A conversion on disk. `documents[shard]` are what it was made of (dicts or raw bytes)."""

    folder: Path
    documents: list[list[dict[str, Any] | bytes]]
    kind: str = "mmc4"

    @property
    def fingerprint(self) -> str:
        """Of docs/format.md: what the manifest says went in."""
        facts = {"format_version": "1", "inputs": [list(SOURCE)], "kind": self.kind}
        facts |= {"options": {}, "versions": {}}
        return sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode())

    def path(self, shard: int = 0, ending: str = ".tar") -> Path:
        return self.folder / f"{shard:09d}{ending}"

    def keys(self, shard: int = 0) -> list[str]:
        first = sum(map(len, self.documents[:shard]))
        return [f"{first + number:012d}" for number in range(len(self.documents[shard]))]

    def write(self) -> None:
        for shard, documents in enumerate(self.documents):
            members = [encode(document) for document in documents]
            names = [f"{key}.json" for key in self.keys(shard)]
            tar = make_tar(list(zip(names, members, strict=True)), fill=False)
            self.path(shard).write_bytes(tar)
            self.write_samples(shard, [self.row(shard, n) for n in range(len(documents))])
            self.path(shard, ".rejects.jsonl").write_bytes(b"")
        self.sign()

    def row(self, shard: int, number: int) -> dict[str, Any]:
        """A row of the samples table, read off the document."""
        members = [encode(document) for document in self.documents[shard]]
        offset = sum(512 + len(member) + -len(member) % 512 for member in members[:number]) + 512
        row: dict[str, Any] = {
            "key": self.keys(shard)[number],
            "offset": offset,
            "size": len(members[number]),
            "sha256": sha256(members[number]),
            "source_file": "docs_shard_0_v2.jsonl.zip",
            "source_member": "docs_shard_0_v2.jsonl",
            "source_record": number,
        }
        try:
            return row | described(json.loads(members[number]))
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            empty = {name: [] for name, kind in ARROW_TYPES.items() if pa.types.is_list(kind)}
            return row | {"sentences": 0, "text_bytes": 0, "text_sha256": sha256(b"")} | empty

    def write_samples(self, shard: int, rows: list[dict[str, Any]]) -> None:
        table = pa.Table.from_pylist(rows, schema=pa.schema(list(ARROW_TYPES.items())))
        pq.write_table(table, self.path(shard, ".samples.parquet"))

    def read_samples(self, shard: int = 0) -> list[dict[str, Any]]:
        return pq.read_table(self.path(shard, ".samples.parquet")).to_pylist()

    def sidecar(self, shard: int) -> dict[str, Any]:
        """What the sidecar of the files as they are now says."""
        tar = self.path(shard).read_bytes()
        samples = self.path(shard, ".samples.parquet").read_bytes()
        rejects = self.path(shard, ".rejects.jsonl").read_bytes()
        rows = self.read_samples(shard)
        dropped: dict[str, dict[str, int]] = {"dropped-document": {}, "dropped-image": {}}
        for line in rejects.splitlines():
            reject = json.loads(line)
            counts = dropped[reject["action"]]
            counts[reject["reason"]] = counts.get(reject["reason"], 0) + 1
        images = sum(len(row["matched"]) for row in rows)
        documents_dropped = sum(dropped["dropped-document"].values())
        tally = {
            "records": len(rows) + documents_dropped,
            "documents": len(rows),
            "images_listed": images + sum(dropped["dropped-image"].values()),
            "images": images,
            "sentences": sum(row["sentences"] for row in rows),
            "image_bytes": sum(sum(row["image_bytes"]) for row in rows),
            "images_reencoded": sum(sum(row["reencoded"]) for row in rows),
            "documents_dropped": dropped["dropped-document"],
            "images_dropped": dropped["dropped-image"],
            "notes": {},
        }
        span = {"file": "docs_shard_0_v2.jsonl.zip", "member": "docs_shard_0_v2.jsonl"}
        first = sum(map(len, self.documents[:shard]))
        span |= {"first_record": first, "num_records": tally["records"]}
        return {
            "format_version": "1",
            "kind": self.kind,
            "layout": "interleaved",
            "shard": self.path(shard).name,
            "bytes": len(tar),
            "sha256": sha256(tar),
            "samples_bytes": len(samples),
            "samples_sha256": sha256(samples),
            "rejects_bytes": len(rejects),
            "rejects_sha256": sha256(rejects),
            "first_ordinal": first,
            "source": [span],
            "tally": tally,
            "fingerprint": self.fingerprint,
        }

    def sign(self) -> None:
        """Write sidecars, manifest and sizes.json so that they agree with the shards."""
        for shard in range(len(self.documents)):
            write_json(self.path(shard, ".json"), self.sidecar(shard))
        self.sign_manifest()

    def sign_manifest(self) -> None:
        rows, totals = [], None
        for shard in range(len(self.documents)):
            raw = self.path(shard, ".json").read_bytes()
            sidecar = json.loads(raw)
            rows.append(
                {
                    "shard": sidecar["shard"],
                    "samples": sidecar["tally"]["documents"],
                    "bytes": sidecar["bytes"],
                    "sha256": sidecar["sha256"],
                    "sidecar": self.path(shard, ".json").name,
                    "sidecar_sha256": sha256(raw),
                }
            )
            totals = sidecar["tally"] if totals is None else add(totals, sidecar["tally"])
        file, size, records, crc32 = SOURCE
        source = {"file": file, "bytes": size, "records": records, "crc32": crc32}
        manifest = {
            "format_version": "1",
            "kind": self.kind,
            "layout": "interleaved",
            "totals": totals,
            "options": {},
            "versions": {},
            "fingerprint": self.fingerprint,
            "inputs": [source],
            "excluded_inputs": [],
            "shards": rows,
        }
        write_json(self.folder / "manifest.json", manifest)
        write_json(self.folder / "sizes.json", {row["shard"]: row["samples"] for row in rows})


def described(document: dict[str, Any]) -> dict[str, Any]:
    """The columns of the samples table that say what a document holds."""
    texts = [text.encode() for text in document["text_list"]]
    images = document["image_info"]
    data = [base64.b64decode(image["image_base64"]) for image in images]
    if not all(isinstance(image["matched_text_index"], int) for image in images):
        raise TypeError("matched_text_index")
    margins = []
    for image, row in zip(images, document["similarity_matrix"], strict=True):
        others = [value for n, value in enumerate(row) if n != image["matched_text_index"]]
        margins.append(image["matched_sim"] - max(others) if others else None)
    return {
        "sentences": len(texts),
        "text_bytes": sum(map(len, texts)),
        "text_sha256": sha256(b"".join(text + b"\n" for text in texts)),
        "matched": [image["matched_text_index"] for image in images],
        "similarity": [image["matched_sim"] for image in images],
        "margin": margins,
        "image_bytes": [len(raw) for raw in data],
        "width": [image["width"] for image in images],
        "height": [image["height"] for image in images],
        "format": [image["format"] for image in images],
        "image_sha256": [image["sha256"] for image in images],
        "reencoded": [False for _ in images],
    }


def add(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """Tallies added up."""
    return {
        name: value + right[name]
        if isinstance(value, int)
        else {key: value.get(key, 0) + right[name].get(key, 0) for key in value | right[name]}
        for name, value in left.items()
    }


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def make_dataset(folder: Path, *, shards: int = 2, documents: int = 3) -> Dataset:
    """A conversion of `shards` shards with `documents` documents each, free of findings."""
    folder.mkdir(parents=True, exist_ok=True)
    made: list[list[dict[str, Any] | bytes]] = [
        [
            make_document(shard * documents + number, kinds=("jpeg", "png", "webp"), images=3)
            for number in range(documents)
        ]
        for shard in range(shards)
    ]
    dataset = Dataset(folder, made)
    dataset.write()
    return dataset


def make_shard_of(folder: Path, *documents: dict[str, Any] | bytes) -> Dataset:
    """A conversion of one shard that holds just these documents, everything else agreeing."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = Dataset(folder, [list(documents)])
    dataset.write()
    return dataset


def make_pairs(folder: Path, *, samples: int = 3) -> Path:
    """One shard as img2dataset writes it: picture, text and JSON of each sample."""
    folder.mkdir(parents=True, exist_ok=True)
    members = []
    for number in range(samples):
        key = f"{number:09d}"
        data = make_image(number)
        members += [
            (f"{key}.jpg", data),
            (f"{key}.txt", f"caption {number}".encode()),
            (f"{key}.json", encode({"url": "https://example.org", "sha256": sha256(b"other")})),
        ]
    path = folder / "00000.tar"
    path.write_bytes(make_tar(members))
    return path


def flip(path: Path, offset: int, mask: int = 0x01) -> None:
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= mask
    path.write_bytes(bytes(data))
