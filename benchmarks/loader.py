"""The training loader: documents a second and core, its profile, its memory, its start.

    python -m benchmarks.loader [--docs 400] [--runs 5] [--folder .bench]

Two comparisons at 224 px, one thread, by turns, in CPU seconds, against OpenFlamingo's way and a
floor (`loader_peers.py` says what these do): a corpus as MMC4's downloader leaves it (0.29
megapixels an image), and documents of 5-megapixel photographs, which we convert with `--max-side
336` and OpenFlamingo's way reads as they are. A document counts when it becomes a training sample;
the gates are medians of the ratios of runs that stood side by side. The tokenizer is a small one
that needs no download: it cuts text into more tokens than a real one, so that a little more text is
beyond the 256.

Memory is the private memory of a process that reads with windows of 64 shards, libraries included:
what it maps of the shards is the page cache's. The start is from a fresh process to its first
batch, of 10,000 shards with a manifest (links to one shard).
"""

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import torch

from benchmarks.convert import ready_corpus
from benchmarks.gates import Gate, median_ratio, print_gates
from benchmarks.loader_apart import SEED, SIZE_PX, load_tokenizer, our_stream
from benchmarks.loader_peers import OpenFlamingoWay, Place, floor
from benchmarks.make_corpus import photographs
from benchmarks.resize import mosaic
from flamingo.data import decode, lane, prepare, stream
from mmdata.shards.reader import ShardReader
from mmdata.training_view import plans
from mmdata.training_view.records import Base64, image_bytes, read_record
from mmdata.training_view.sequence import MediaTokenizer
from pipelines.mmc4.options import ConvertMmc4
from pipelines.mmc4.run import convert_mmc4
from schemas.manifest import Manifest

BATCH = 8
LARGE_SIDE = (2592, 1944)
LARGE_DOCS, LARGE_PHOTOGRAPHS = 60, 24
AIM_USUAL, AIM_LARGE, AIM_FLOOR = 5.0, 10.0, 0.8
AIM_PARSE_US, AIM_MIB, AIM_START_SECONDS = 250.0, 500.0, 3.0
WINDOW, NUM_SHARDS = 64, 10_000
PARSED_BYTES = 350_000
#: (module, name of the function, what it is in the profile).
STAGES: list[tuple[Any, str, str]] = [
    (lane, "read_record", "JSON"),
    (prepare, "image_bytes", "base64"),
    (plans, "select", "selection"),
    (plans, "interleaved_tokens", "tokens"),
    (decode, "_decode_jpeg", "decode JPEG"),
    (decode, "_decode_other", "decode other"),
    (decode, "_resize_and_crop", "resize"),
    (stream, "collate", "collate"),
]


def ready_shards(corpus: Path, name: str, **options: Any) -> Path:
    """Shards of a corpus, converted unless they are there."""
    out = corpus.with_name(f"{corpus.name}-{name}")
    conversion = ConvertMmc4(
        docs=(str(corpus),), images=str(corpus / "images"), output=str(out), workers=0, **options
    )
    result = convert_mmc4(conversion, quiet=True)
    if not result.complete:
        raise SystemExit(f"the conversion did not complete: {result.failures}")
    for path in out.glob("*.tar"):
        path.read_bytes()
    return out


def large_corpus(corpus: Path) -> Path:
    """Some documents of a corpus with photographs of 5 megapixels in place of their images."""
    large = corpus.with_name(f"{corpus.name}-large")
    mark = large / "corpus.json"
    if mark.exists():
        return large
    shutil.rmtree(large, ignore_errors=True)
    (large / "images" / "0").mkdir(parents=True)
    pictures = photographs(Path("examples/mmc4").resolve())
    files = []
    for number in range(LARGE_PHOTOGRAPHS):
        sink = BytesIO()
        mosaic(pictures, number).resize(LARGE_SIDE).save(sink, "JPEG", quality=85)
        files.append(large / f"{number}.jpg")
        files[-1].write_bytes(sink.getvalue())
    source = sorted(corpus.glob("*.jsonl.zip"))[0]
    with zipfile.ZipFile(source) as archive:
        lines = archive.read(archive.namelist()[0]).splitlines()[:LARGE_DOCS]
    kept, number = [], 0
    for line in lines:
        document = json.loads(line)
        for info in document["image_info"]:
            info["image_name"] = f"{number}.jpg"
            os.link(files[number % len(files)], large / "images" / "0" / f"{number}.jpg")
            number += 1
        kept.append(json.dumps(document))
    with zipfile.ZipFile(large / source.name, "w") as archive:
        archive.writestr(source.name.removesuffix(".zip"), "\n".join(kept))
    mark.write_text("{}", encoding="utf-8")
    return large


def ours(shards: Path, tokenizer: Any) -> int:
    """An epoch of the loader; returns its samples."""
    samples = 0
    for one in our_stream(shards, tokenizer).batches():
        samples += len(one.keys)
        if one.position.last_epoch:  # the batch that reaches into the next epoch counts too
            break
    return samples


def theirs(shards: Path, tokenizer: Any) -> int:
    """An epoch of OpenFlamingo's way; returns its samples."""
    way = OpenFlamingoWay(tokenizer, SIZE_PX, SEED)
    samples = way.samples(sorted(shards.glob("*.tar")))
    number = 0
    while few := list(islice(samples, BATCH)):
        way.batch(few)
        number += len(few)
    return number


def used_places(shards: Path, tokenizer: Any) -> tuple[list[Place], int]:
    """Where the images lie that an epoch uses, and the number of its samples."""
    one = our_stream(shards, tokenizer)
    preparer = prepare.Preparer(
        one.config, one.rule, MediaTokenizer(tokenizer), seed=SEED, validation=False
    )
    places, samples = [], 0
    for shard in sorted(shards.glob("*.tar")):
        with ShardReader(shard) as reader:
            for sample in reader:
                data = bytes(sample.members["json"])
                record = read_record(sample.members, one.rule)
                plan = preparer.plan(record, sample.key, 0)
                samples += plan.document_drop is None
                for image in plan.images if plan.document_drop is None else []:
                    picture = record.images[image]
                    assert isinstance(picture, Base64)  # noqa: S101 - of documents
                    start = sample.offset + data.index(picture.text)
                    places.append(Place(shard, start, start + len(picture.text)))
    return places, samples


def compare(name: str, mine: Path, other: Path, tokenizer: Any, runs: int) -> dict[str, float]:
    """Documents a second of each, by turns; returns the median ratios."""
    places, num_used = used_places(mine, tokenizer)
    works: dict[str, Callable[[], int]] = {
        "OpenFlamingo's way": lambda: theirs(other, tokenizer),
        "floor": lambda: num_used if floor(places, SIZE_PX) >= 0 else 0,
        "mmdata": lambda: ours(mine, tokenizer),
    }
    rates: dict[str, list[float]] = {subject: [] for subject in works}
    for _ in range(runs):
        for subject, work in works.items():
            start = time.process_time()
            samples = work()
            rates[subject].append(samples / (time.process_time() - start))
    for subject, found in rates.items():
        print(f"  {name:<8}{subject:<20}{median(found):>9.1f} documents/s a core", flush=True)
    return {
        subject: median_ratio(rates["mmdata"], rates[subject])
        for subject in ("OpenFlamingo's way", "floor")
    }


@contextmanager
def _timed_stages() -> Iterator[Counter[str]]:
    """Within, the functions of `STAGES` add up their CPU seconds."""
    seconds: Counter[str] = Counter()
    before = [(module, name, getattr(module, name)) for module, name, _ in STAGES]

    def timed(label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                seconds[label] += time.process_time() - start

        return call

    try:
        for module, name, label in STAGES:
            setattr(module, name, timed(label, getattr(module, name)))
        yield seconds
    finally:
        for module, name, function in before:
            setattr(module, name, function)


def print_profile(shards: Path, tokenizer: Any) -> None:
    """The shares of an epoch's CPU time."""
    with _timed_stages() as seconds:
        start = time.process_time()
        samples = ours(shards, tokenizer)
        total = time.process_time() - start
    seconds["read, order, the rest"] = total - seconds.total()
    print(f"  profile, {total / samples * 1e3:.2f} ms a document:", flush=True)
    for label, spent in seconds.most_common():
        print(f"    {label:<24}{spent / total:>6.1%}{spent / samples * 1e6:>10.0f} us")


def parse_us() -> float:
    """Microseconds from the JSON of a 350 KB document to its images' bytes."""
    image = os.urandom(PARSED_BYTES // 8 * 3 // 4)
    info = {
        "image_name": "0.jpg",
        "matched_text_index": 3,
        "matched_sim": 0.3,
        "image_base64": base64.b64encode(image).decode(),
    }
    document = {
        "text_list": ["A sentence of some words and then some more."] * 22,
        "image_info": [info] * 8,
        "similarity_matrix": [[0.123456] * 22] * 8,
    }
    members = {"json": memoryview(json.dumps(document).encode())}
    times = []
    for _ in range(200):
        start = time.perf_counter()
        record = read_record(members, "interleaved")
        for one in record.images:
            if one is not None:
                image_bytes(one)
        times.append(time.perf_counter() - start)
    return median(times) * 1e6


def linked_shards(shards: Path, number: int) -> Path:
    """A folder of so many shards with a manifest, all of them links to the first of `shards`."""
    folder = shards.with_name(f"{shards.name}-x{number}")
    if (folder / "manifest.json").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    manifest = msgspec.json.decode((shards / "manifest.json").read_bytes(), type=Manifest)
    row = manifest.shards[0]
    stem = row.shard.removesuffix(".tar")
    rows = []
    for index in range(number):
        for ending in (".tar", ".samples.parquet"):
            os.link(shards / f"{stem}{ending}", folder / f"{index:09d}{ending}")
        rows.append(msgspec.structs.replace(row, shard=f"{index:09d}.tar"))
    whole = msgspec.structs.replace(manifest, shards=rows)
    (folder / "manifest.json").write_bytes(msgspec.json.encode(whole))
    return folder


def _apart(shards: Path) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.loader_apart",
        str(shards),
        "--window",
        str(WINDOW),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def bench(folder: Path, docs: int = 400, runs: int = 5) -> list[Gate]:
    """Measure, and print the tables."""
    torch.set_num_threads(1)
    tokenizer = load_tokenizer()
    corpus = ready_corpus(folder, docs)
    usual = ready_shards(corpus, "shards")
    large = large_corpus(corpus)
    small = ready_shards(large, "shards-336", max_side=336)
    as_is = ready_shards(large, "shards")
    ratios = compare("usual", usual, usual, tokenizer, runs)
    ratios_large = compare("5 MP", small, as_is, tokenizer, max(1, runs // 2))
    print_profile(usual, tokenizer)
    tiny = ready_shards(corpus, "shards-of-8", docs_per_shard=8)
    many = _apart(linked_shards(tiny, NUM_SHARDS))
    peer = "OpenFlamingo's way"
    return [
        Gate("loader at 224 px, times OpenFlamingo's way", ratios[peer], AIM_USUAL),
        Gate("loader of --max-side 336, times its way at 5 MP", ratios_large[peer], AIM_LARGE),
        Gate("loader, documents/s in those of the floor", ratios["floor"], AIM_FLOOR),
        Gate("JSON and base64 of 350 kB", parse_us(), AIM_PARSE_US, at_most=True, unit=" us"),
        Gate(
            f"loader's private memory, windows of {WINDOW} shards",
            many["bytes"] / 2**20,
            AIM_MIB,
            at_most=True,
            unit=" MiB",
        ),
        Gate(
            f"first batch of {NUM_SHARDS:,} shards",
            many["seconds"],
            AIM_START_SECONDS,
            at_most=True,
            unit=" s",
        ),
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--docs", type=int, default=400)
    parser.add_argument("--runs", type=int, default=5, help="of each, by turns")
    parser.add_argument(
        "--folder", type=Path, default=Path(os.environ.get("MMDATA_BENCH_DIR", ".bench"))
    )
    options = parser.parse_args()
    print_gates(bench(options.folder.resolve(), options.docs, options.runs))


if __name__ == "__main__":
    main()
