"""convert-mmc4 in one process against a floor written out here.

The floor does to every image only what cannot be left out: read it, verify it as the converter
does, hash it, base64 it, write it to a tar that is hashed on the way and synced at the end. It
plans nothing, aligns nothing, checks no JSON, keeps no table, and could not be resumed. Against
`--verify header` the floor verifies nothing at all. `plain` is the floor without its hashes;
`pillow` is what OpenFlamingo's converter does to an image at the least: decode it and encode it
anew at quality 75, by Pillow, on every fourth image.

    python -m benchmarks.convert [--docs 2000] [--runs 3] [--folder .bench]

Three comparisons: a corpus of all formats (8% no JPEG, 14% progressive) and its baseline JPEGs
alone, both verified as by default, and the first with `--verify header`. Every measurement is a
process of its own; the subjects take turns on a corpus that is in the page cache, and a gate is
the median of the ratios of runs that stood side by side. Peak memory is the process's high-water
mark, interpreter and libraries included.

The corpora are made once (about two minutes) and kept in --folder, or $MMDATA_BENCH_DIR.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO, Literal, get_args

from PIL import Image

from benchmarks.gates import Gate, median_ratio, print_gates
from benchmarks.make_corpus import make_corpus
from benchmarks.processes import peak_bytes

Subject = Literal["plain", "floor", "converter", "pillow"]
Verify = Literal["header", "decode"]
DOCS_PER_SHARD = 1000
SEED = 1
#: Of the floor's images a second.
AIMS: dict[str, float] = {"decode": 0.85, "header": 0.45}
#: In multiples of Pillow's decoding and encoding.
AIM_PILLOW = 2.6
PILLOW_QUALITY = 75  # what OpenFlamingo's converter leaves it at
PILLOW_EVERY = 4


class Tar:
    """A tar that is hashed as it is written, or not."""

    def __init__(self, path: Path, *, hashed: bool) -> None:
        self._file: BinaryIO = open(path, "wb", buffering=1 << 20)  # noqa: SIM115 - closed below
        self._hash = hashlib.sha256() if hashed else None

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)
        if self._hash is not None:
            self._hash.update(data)

    def close(self) -> None:
        """Sync to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def run_floor(corpus: Path, out: Path, verify: Verify, *, hashed: bool = True) -> int:
    """The least that a conversion can do; returns the number of images."""
    import msgspec
    import pybase64

    from mmdata.images import ImagePolicy, prepare_image
    from mmdata.shards.tar import END_MARK, member_header, padding

    policy = ImagePolicy(verify="decode")
    num_images, tar = 0, None
    for number, (folder, line) in enumerate(_records(corpus)):
        if number % DOCS_PER_SHARD == 0:
            if tar is not None:
                tar.write(END_MARK)
                tar.close()
            tar = Tar(out / f"{number // DOCS_PER_SHARD:09d}.tar", hashed=hashed)
        assert tar is not None  # noqa: S101 - the first record opens it
        parts = [line]
        for info in msgspec.json.decode(line)["image_info"]:
            data = (folder / info["image_name"]).read_bytes()
            if verify == "decode":
                data = prepare_image(data, policy).data
            if hashed:
                parts.append(hashlib.sha256(data).hexdigest().encode())
            parts.append(pybase64.b64encode(data))
            num_images += 1
        size = sum(map(len, parts))
        tar.write(member_header(f"{number:012d}.json", size))
        for part in parts:
            tar.write(part)
        tar.write(padding(size))
    if tar is not None:
        tar.write(END_MARK)
        tar.close()
    return num_images


def _records(corpus: Path) -> Iterator[tuple[Path, bytes]]:
    """(folder of its images, record), in order."""
    for shard, path in enumerate(sorted(corpus.glob("*.jsonl.zip"))):
        with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as lines:
            for line in lines:
                yield corpus / "images" / str(shard), line


def run_converter(corpus: Path, out: Path, verify: Verify) -> int:
    """convert-mmc4 as a user calls it, in this process; returns the number of images."""
    from pipelines.mmc4.options import ConvertMmc4
    from pipelines.mmc4.run import convert_mmc4

    options = ConvertMmc4(
        docs=(str(corpus),),
        images=str(corpus / "images"),
        output=str(out),
        docs_per_shard=DOCS_PER_SHARD,
        workers=0,
        verify=verify,
    )
    result = convert_mmc4(options, quiet=True)
    if not result.complete:
        raise SystemExit(f"the conversion did not complete: {result.failures}")
    return result.tally.images


def run_pillow(corpus: Path) -> int:
    """Decode and encode anew; returns the number of images."""
    paths = sorted((corpus / "images").rglob("*.*"))[::PILLOW_EVERY]
    for path in paths:
        with Image.open(path) as image:
            image.convert("RGB").save(BytesIO(), "JPEG", quality=PILLOW_QUALITY)
    return len(paths)


def measure(subject: Subject, corpus: Path, out: Path, verify: Verify) -> dict[str, float]:
    """One measurement, in this process: the imports are not timed."""
    import pyarrow.parquet

    import mmdata.images.prepare
    import pipelines.mmc4.run  # noqa: F401

    del pyarrow, mmdata
    wall, cpu = time.perf_counter(), time.process_time()
    if subject == "converter":
        num_images = run_converter(corpus, out, verify)
    elif subject == "pillow":
        num_images = run_pillow(corpus)
    else:
        num_images = run_floor(corpus, out, verify, hashed=subject == "floor")
    return {
        "images": num_images,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": peak_bytes() / 2**20,
    }


def measure_apart(subject: Subject, corpus: Path, verify: Verify) -> dict[str, float]:
    """One measurement in a fresh process, its output thrown away."""
    out = corpus.parent / "output"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    command = [sys.executable, "-m", "benchmarks.convert", "--measure", subject]
    command += ["--corpus", str(corpus), "--out", str(out), "--verify", verify]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    shutil.rmtree(out)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def ready_corpus(folder: Path, docs: int) -> Path:
    """The corpus, made unless it is there; read once, so that it is in the page cache."""
    corpus = folder / f"corpus-{docs}-{SEED}"
    mark = corpus / "corpus.json"
    if not mark.exists():
        shutil.rmtree(corpus, ignore_errors=True)
        print(f"making a corpus of {docs} documents in {corpus} (once)", flush=True)
        facts = make_corpus(
            corpus, docs=docs, shards=4, seed=SEED, sample=Path("examples/mmc4").resolve()
        )
        mark.write_text(json.dumps(facts), encoding="utf-8")
    _read_all(corpus)
    return corpus


def baseline_corpus(corpus: Path) -> Path:
    """The same documents with their baseline JPEGs alone (links to the corpus's files)."""
    baseline = corpus.with_name(f"{corpus.name}-baseline")
    mark = baseline / "corpus.json"
    if not mark.exists():
        shutil.rmtree(baseline, ignore_errors=True)
        baseline.mkdir()
        for shard, path in enumerate(sorted(corpus.glob("*.jsonl.zip"))):
            keep_baseline(path, corpus / "images" / str(shard), baseline)
        mark.write_text("{}", encoding="utf-8")
    _read_all(baseline)
    return baseline


def keep_baseline(archive_path: Path, images: Path, baseline: Path) -> None:
    """One input of the corpus of baseline JPEGs; documents left without any are left out."""
    folder = baseline / "images" / images.name
    folder.mkdir(parents=True)
    lines = []
    with zipfile.ZipFile(archive_path) as archive:
        name = archive.namelist()[0]
        records = [json.loads(line) for line in archive.read(name).splitlines()]
    for record in records:
        infos = record["image_info"]
        kept = [k for k, info in enumerate(infos) if _is_baseline(images / info["image_name"])]
        record["image_info"] = [infos[k] for k in kept]
        record["similarity_matrix"] = [record["similarity_matrix"][k] for k in kept]
        for info in record["image_info"]:
            os.link(images / info["image_name"], folder / info["image_name"])
        if kept:
            lines.append(json.dumps(record))
    with zipfile.ZipFile(baseline / archive_path.name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, "\n".join(lines))


def _is_baseline(path: Path) -> bool:
    with Image.open(path) as image:
        return image.format == "JPEG" and "progressive" not in image.info


def _read_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.read_bytes()


def compare(
    title: str, corpus: Path, verify: Verify, subjects: tuple[Subject, ...], runs: int
) -> dict[Subject, list[dict[str, float]]]:
    """Measure the subjects by turns and print a table of medians; returns what was measured."""
    found: dict[Subject, list[dict[str, float]]] = {subject: [] for subject in subjects}
    for run in range(runs):
        # There and back, so that a machine that slows down favours nobody.
        for subject in subjects if run % 2 == 0 else reversed(subjects):
            figures = measure_apart(subject, corpus, verify)
            figures["rate"] = figures["images"] / figures["seconds"]
            figures["cpu_rate"] = figures["images"] / figures["cpu_seconds"]
            found[subject].append(figures)
    print(f"\n{title}; medians of {runs} runs")
    print(
        f"{'':<11}{'images/s':>10}{'range':>18}{'x floor':>10}{'CPU x floor':>13}{'peak MiB':>10}"
    )
    for subject, measured in found.items():
        rates = [one["rate"] for one in measured]
        wall, cpu = (ratios(found, subject, "floor", by) for by in ("rate", "cpu_rate"))
        peak = max(one["peak_mib"] for one in measured)
        print(
            f"{subject:<11}{median(rates):>10,.0f}{f'{min(rates):,.0f}-{max(rates):,.0f}':>18}"
            f"{wall:>10.2f}{cpu:>13.2f}{peak:>10.0f}",
            flush=True,
        )
    return found


def ratios(
    found: dict[Subject, list[dict[str, float]]], subject: Subject, other: Subject, by: str
) -> float:
    """The median ratio of a subject's rates to another's."""
    return median_ratio((one[by] for one in found[subject]), (one[by] for one in found[other]))


def bench(folder: Path, docs: int = 2000, runs: int = 3) -> list[Gate]:
    """Measure, and print the tables."""
    corpus = ready_corpus(folder, docs)
    baseline = baseline_corpus(corpus)
    facts = json.loads((corpus / "corpus.json").read_text(encoding="utf-8"))
    size = f"{facts['documents']:,} documents, {facts['images']:,} images"
    mixed = compare(f"{size}, verified", corpus, "decode", ("plain", "floor", "converter"), runs)
    subjects: tuple[Subject, ...] = ("plain", "floor", "converter", "pillow")
    alone = compare("their baseline JPEGs alone, verified", baseline, "decode", subjects, runs)
    # These runs are short and vary more: more of them.
    headers = compare(
        "all images, --verify header (floor: not verified at all)",
        corpus, "header", ("plain", "floor", "converter"), 2 * runs + 1,
    )  # fmt: skip
    return [
        Gate(f"{name}, of the floor", ratios(found, "converter", "floor", "rate"), AIMS[verify])
        for name, found, verify in (
            ("all images, verified", mixed, "decode"),
            ("baseline JPEGs, verified", alone, "decode"),
            ("--verify header", headers, "header"),
        )
    ] + [
        Gate(
            "baseline JPEGs, verified, times Pillow's decoding and encoding",
            ratios(alone, "converter", "pillow", "rate"),
            AIM_PILLOW,
        )
    ]


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--docs", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3, help="of each, by turns")
    parser.add_argument(
        "--folder", type=Path, default=Path(os.environ.get("MMDATA_BENCH_DIR", ".bench"))
    )
    parser.add_argument("--measure", choices=get_args(Subject), help=argparse.SUPPRESS)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--verify", choices=get_args(Verify), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """The command line: all tables, or (in a process of its own) one measurement."""
    options = _arguments()
    if options.measure:
        figures = measure(options.measure, options.corpus, options.out, options.verify)
        print(json.dumps(figures))
    else:
        print_gates(bench(options.folder.resolve(), options.docs, options.runs))


if __name__ == "__main__":
    main()
