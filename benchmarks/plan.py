"""What does not convert anything: planning many inputs, and finding a finished run finished.

    python -m benchmarks.plan [--inputs 1000] [--records 4000] [--shards 1000] [--archive 1500000]

* planning: `--dry-run` over zipped inputs, each record read and checked, in MB of JSON a second,
  beside what decompressing alone costs (Python's zipfile, no lines, no CRC of ours), in CPU time;
* a resume: the same command over a finished run, from the sidecars;
* an archive: a `.jsonl.gz` of many records, which cannot be entered in the middle, is to be read
  once for the plan and once for the shards, however many these are (its reads are counted).

Records are MMC4's in shape (2 kB, one image that all share), so that images cost nothing here.
"""

import argparse
import gzip
import json
import os
import random
import shutil
import time
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.gates import Gate, print_gates
from mmdata.sources import records
from pipelines.conversion.result import ConversionResult
from pipelines.mmc4.options import ConvertMmc4
from pipelines.mmc4.run import convert_mmc4

ZIP_TIME = (2023, 6, 1, 0, 0, 0)
#: A resume of a finished run of 1,000 shards is to take less.
AIM_RESUME_SECONDS = 10.0
#: Once for the plan, once for the shards.
AIM_ARCHIVE_READS = 2


def record(number: int) -> bytes:
    """One line of an MMC4 file: about 2 kB, with one image; half of it numbers, as in MMC4."""
    rng = random.Random(number)
    texts = [f"Sentence {rng.random()} of page {number}, as on the web." for _ in range(20)]
    document = {
        "text_list": texts,
        "url": f"https://example.org/{number}.html",
        "image_info": [{"image_name": "one.jpg", "raw_url": "https://example.org/one.jpg"}],
        "similarity_matrix": [[rng.uniform(0.1, 0.4) for _ in range(20)]],
        "could_have_url_duplicate": 0,
    }
    return json.dumps(document).encode() + b"\n"


def make_inputs(folder: Path, inputs: int, per_input: int) -> int:
    """Zipped inputs, all of the same records; returns the bytes of JSON in one."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(folder / "images" / "one.jpg")
    data = b"".join(record(k) for k in range(per_input))
    first = folder / "docs_no_face_shard_0_v2.jsonl.zip"
    with zipfile.ZipFile(first, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        archive.writestr(zipfile.ZipInfo("docs.jsonl", ZIP_TIME), data, zipfile.ZIP_DEFLATED)
    for number in range(1, inputs):
        os.link(first, folder / f"docs_no_face_shard_{number}_v2.jsonl.zip")
    return len(data)


def run(folder: Path, output: Path, pattern: str = "*.zip", **more: Any) -> ConversionResult:
    """A conversion of the inputs in a folder."""
    options: dict[str, Any] = {"docs_per_shard": 1000, **more}
    docs = (str(folder / pattern),)
    images = str(folder / "images")
    return convert_mmc4(
        ConvertMmc4(docs=docs, images=images, output=str(output), **options), quiet=True
    )


def bench_plan(folder: Path, inputs: int, per_input: int) -> list[Gate]:
    """Planning against decompressing alone; shown, not a gate."""
    size = make_inputs(folder, inputs, per_input) * inputs
    few = sorted(folder.glob("*.zip"))[: max(1, inputs // 20)]
    start = time.process_time()
    for path in few:
        with zipfile.ZipFile(path) as archive, archive.open("docs.jsonl") as member:
            while member.read(1 << 20):
                pass
    floor = size / inputs * len(few) / (time.process_time() - start)
    start = time.process_time()
    run(folder, folder / "out", dry_run=True, workers=0)
    alone = time.process_time() - start
    start = time.perf_counter()
    run(folder, folder / "out", dry_run=True)
    seconds = time.perf_counter() - start
    print(
        f"plan: {inputs:,} inputs of {per_input:,} records, {size / 1e6:,.0f} MB of JSON: one core "
        f"{alone:.1f} s (CPU), {size / alone / 1e6:,.0f} MB/s; decompressing alone "
        f"{floor / 1e6:,.0f} MB/s; as by default {seconds:.1f} s, {size / seconds / 1e6:,.0f} MB/s",
        flush=True,
    )
    return []


def bench_resume(folder: Path, shards: int) -> list[Gate]:
    """The same command again over a finished run."""
    make_inputs(folder, 1, shards)
    run(folder, folder / "out", docs_per_shard=1)
    start = time.perf_counter()
    result = run(folder, folder / "out", docs_per_shard=1)
    seconds = time.perf_counter() - start
    if result.shards_kept != shards:
        raise SystemExit(f"expected {shards} shards to be kept, got {result.shards_kept}")
    name = f"resume of a finished run of {shards:,} shards"
    return [Gate(name, seconds, AIM_RESUME_SECONDS, at_most=True, unit=" s")]


def bench_archive(folder: Path, num_records: int) -> list[Gate]:
    """How often, and how fast, one large .jsonl.gz is read."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(folder / "images" / "one.jpg")
    size = 0
    with gzip.open(folder / "docs.jsonl.gz", "wb", compresslevel=1) as file:
        for number in range(num_records):
            size += file.write(record(number))
    opened = 0
    open_segment = records._open

    def counted(segment: records.Segment) -> Any:
        nonlocal opened
        opened += 1
        return open_segment(segment)

    records._open = counted
    try:
        start = time.perf_counter()
        run(folder, folder / "out", "*.gz", dry_run=True, workers=0)
        planned = time.perf_counter() - start
        start, opened = time.perf_counter(), 0
        result = run(folder, folder / "out", "*.gz", workers=0)
        seconds = time.perf_counter() - start
    finally:
        records._open = open_segment
    print(
        f"archive: a .jsonl.gz of {num_records:,} records, {size / 1e6:,.0f} MB of JSON: planned "
        f"in {planned:.0f} s ({size / planned / 1e6:,.0f} MB/s), planned and converted in "
        f"{seconds:.0f} s to {result.plan.num_shards:,} shards",
        flush=True,
    )
    name = f"a .jsonl.gz of {num_records:,} records, times read (plan and conversion)"
    return [Gate(name, opened, AIM_ARCHIVE_READS, at_most=True)]


def bench(
    folder: Path,
    inputs: int = 1000,
    records: int = 4000,
    shards: int = 1000,
    archive: int = 1_500_000,
) -> list[Gate]:
    """Measure all three."""
    work = folder / "plan"
    found: list[Gate] = []
    for name, part in (
        ("plan", partial(bench_plan, inputs=inputs, per_input=records)),
        ("resume", partial(bench_resume, shards=shards)),
        ("archive", partial(bench_archive, num_records=archive)),
    ):
        shutil.rmtree(work, ignore_errors=True)
        found += part(work / name)
    shutil.rmtree(work, ignore_errors=True)
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--archive", type=int, default=1_500_000)
    parser.add_argument(
        "--folder", type=Path, default=Path(os.environ.get("MMDATA_BENCH_DIR", ".bench"))
    )
    options = vars(parser.parse_args())
    options["folder"] = options["folder"].resolve()
    print_gates(bench(**options))


if __name__ == "__main__":
    main()
