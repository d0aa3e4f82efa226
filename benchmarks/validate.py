"""How fast shards are checked, at each level, against what cannot be left out of it.

    python -m benchmarks.validate [--members 200000] [--docs 2000] [--runs 3] [--folder .bench]

* structure: members a second over small documents, with their sidecars and samples tables, which
  are read and compared; beside it the walk of the tar alone. CPU time of one process.
* checksum: bytes a second of `--level structure --checksum`, against hashlib's own speed on the
  same files, by turns.
* content: bytes a second and core over converted documents (JSON, schema, base64, sha256 of images,
  alignment, samples table); the gate is without the sha256 of the tar, which has its own.
* full: seconds against a floor that takes the base64 apart and decodes every image as strictly.
* workers: CPU seconds of the whole family of processes with two Ray workers against one, Ray's own
  start and end included in both.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pybase64

from benchmarks.convert import ready_corpus, run_converter
from benchmarks.gates import Gate, median_ratio, print_gates
from benchmarks.processes import watch
from mmdata.images import verify_image
from mmdata.shards.reader import ShardReader
from mmdata.shards.structure import walk
from mmdata.shards.writer import ShardWriter
from mmdata.storage.files import open_buffer
from mmdata.validation.image_rules import SHARD_POLICY
from mmdata.validation.shard import ShardTask, check_shard
from schemas.manifest import SourceSpan
from schemas.validation import Level

AIM_STRUCTURE = 200_000
AIM_CHECKSUM = 0.8
AIM_CONTENT_MB = 600
AIM_FULL = 0.8
AIM_CPU = 1.1
MEMBERS_A_SHARD = 10_000


def make_members(folder: Path, members: int) -> list[str]:
    """Shards of small documents (text only, 200 bytes), with everything that stands beside them."""
    folder.mkdir(parents=True)
    for shard in range(max(1, members // MEMBERS_A_SHARD)):
        writer = ShardWriter(str(folder), shard)
        first = shard * MEMBERS_A_SHARD
        for number in range(first, first + MEMBERS_A_SHARD):
            _add(writer, number)
        writer.commit(
            kind="mmc4",
            fingerprint="0" * 64,
            first_ordinal=first,
            source=[SourceSpan(file="docs.jsonl", first_record=first, num_records=MEMBERS_A_SHARD)],
            may_commit=lambda: True,
        )
    return sorted(map(str, folder.glob("*.tar")))


def _add(writer: ShardWriter, number: int) -> None:
    text = f"Sentence of page {number}."
    document = {
        "format_version": "1",
        "text_list": [text],
        "image_info": [],
        "similarity_matrix": [],
        "similarity_source": "mmc4",
        "alignment": "assigned",
    }
    raw = json.dumps(document).encode()
    row: dict[str, object] = {
        "size": len(raw),
        "sha256": hashlib.sha256(raw).hexdigest(),
        "sentences": 1,
        "text_bytes": len(text),
        "text_sha256": hashlib.sha256(text.encode() + b"\n").hexdigest(),
    }
    images = ("matched", "similarity", "margin", "image_bytes", "width", "height", "format")
    row |= {name: [] for name in (*images, "image_sha256", "reencoded")}
    writer.add(
        number, SourceSpan(file="docs.jsonl", first_record=number, num_records=1), [raw], row
    )
    writer.tally.records += 1
    writer.tally.documents += 1
    writer.tally.sentences += 1


def check(paths: list[str], level: Level, *, checksum: bool = False) -> None:
    """Check shards in this process, and insist that they are sound."""
    for path in paths:
        task = ShardTask(path=path, level=level, max_findings=9, owed=True, checksum=checksum)
        result = check_shard(task)
        if result.counts:
            raise SystemExit(f"{path}: {result.findings[0]}")


def cpu_seconds(work: Callable[[], object]) -> float:
    """Of this process, while it works."""
    start = time.process_time()
    work()
    return time.process_time() - start


def walk_all(paths: list[str]) -> None:
    """The walk of the tars, and nothing else."""
    for path in paths:
        with open_buffer(path) as data:
            for _ in walk(data, print, ours=True):
                pass


def hash_all(paths: list[str]) -> None:
    """hashlib's own speed."""
    for path in paths:
        with open(path, "rb") as file:
            hashlib.file_digest(file, "sha256")


def decode_all(paths: list[str]) -> None:
    """The floor of level full: base64 taken apart, every image decoded strictly."""
    for path in paths:
        with ShardReader(path) as reader:
            for sample in reader:
                for image in json.loads(bytes(sample.members["json"]))["image_info"]:
                    verify_image(pybase64.b64decode(image["image_base64"]), SHARD_POLICY)


def bench_structure(folder: Path, members: int, runs: int) -> list[Gate]:
    """Members a second."""
    paths = make_members(folder, members)
    total = MEMBERS_A_SHARD * len(paths)
    check(paths, "structure")
    whole = [total / cpu_seconds(lambda: check(paths, "structure")) for _ in range(runs)]
    alone = [total / cpu_seconds(lambda: walk_all(paths)) for _ in range(runs)]
    print(
        f"structure: {total:,} members: {median(whole):,.0f} a second and core with sidecars and "
        f"tables, the walk alone {median(alone):,.0f}",
        flush=True,
    )
    return [Gate("structure, members a second", median(whole), AIM_STRUCTURE)]


def bench_bytes(paths: list[str], runs: int) -> list[Gate]:
    """Checksum, content and full, by bytes."""
    size = sum(os.path.getsize(path) for path in paths)
    works: dict[str, Callable[[], object]] = {
        "hashlib": lambda: hash_all(paths),
        "checksum": lambda: check(paths, "structure", checksum=True),
        "content": lambda: check(paths, "content"),
        "floor": lambda: decode_all(paths),
        "full": lambda: check(paths, "full"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            seconds[name].append(cpu_seconds(work))
    rates = {name: size / median(times) / 1e6 for name, times in seconds.items()}
    pairs = zip(seconds["content"], seconds["hashlib"], strict=True)
    content = size / median(whole - hashing for whole, hashing in pairs) / 1e6
    print("MB a second and core: " + ", ".join(f"{n} {rate:,.0f}" for n, rate in rates.items()))
    return [
        Gate(
            "--checksum, in hashlib's own speed",
            median_ratio(seconds["hashlib"], seconds["checksum"]),
            AIM_CHECKSUM,
        ),
        Gate("content but the tar's sha256, MB a second and core", content, AIM_CONTENT_MB),
        Gate(
            "full, in the speed of strict decoding alone",
            median_ratio(seconds["floor"], seconds["full"]),
            AIM_FULL,
        ),
    ]


def bench_workers(shards: Path, runs: int) -> list[Gate]:
    """CPU seconds of two workers against one."""
    ratios = []
    for _ in range(runs):
        found = {}
        for workers in (1, 2):
            command = [sys.executable, "-m", "mmdata.cli", "validate", str(shards)]
            found[workers] = watch([*command, "--workers", str(workers)]).cpu_seconds
        ratios.append(found[2] / found[1])
    name = "full on two workers, CPU in that of one"
    return [Gate(name, median(ratios), AIM_CPU, at_most=True)]


def bench(folder: Path, members: int = 200_000, docs: int = 2000, runs: int = 3) -> list[Gate]:
    """Measure everything."""
    work = folder / "validate"
    shutil.rmtree(work, ignore_errors=True)
    found = bench_structure(work / "members", members, runs)
    corpus = ready_corpus(folder, docs)
    run_converter(corpus, work / "shards", "decode")
    paths = sorted(map(str, (work / "shards").glob("*.tar")))
    found += bench_bytes(paths, runs)
    found += bench_workers(work / "shards", runs)
    shutil.rmtree(work)
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--members", type=int, default=200_000)
    parser.add_argument("--docs", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, default=Path(os.environ.get("MMDATA_BENCH_DIR", ".bench"))
    )
    options = vars(parser.parse_args())
    options["folder"] = options["folder"].resolve()
    print_gates(bench(**options))


if __name__ == "__main__":
    main()
