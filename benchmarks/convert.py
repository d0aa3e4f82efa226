"""`make bench`: convert-mmc4 in one process against a floor written out here.

The floor does to every image only what cannot be left out: read it, verify it as the converter
does, hash it, base64 it, write it to a tar that is hashed on the way and synced at the end. It
plans nothing, aligns nothing, checks no JSON, keeps no table, and could not be resumed. Against
`--verify header` the floor verifies nothing at all.

Every measurement is a process of its own, floor and converter by turns, on a corpus that is in the
page cache; the table shows medians. Peak memory is the process's high-water mark, interpreter and
libraries included. Aims: 0.7 of the floor with decoding, 0.3 without, under 600 MiB.

    python -m benchmarks.convert [--docs 2000] [--runs 3] [--folder .bench]

The corpus is made once (about two minutes) and kept in --folder, or $MMDATA_BENCH_DIR.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO, Literal

from benchmarks.make_corpus import make_corpus

Subject = Literal["floor", "converter"]
Verify = Literal["header", "decode"]
DOCS_PER_SHARD = 1000
SEED = 1
AIMS: dict[str, float] = {"decode": 0.7, "header": 0.3}
AIM_MEMORY_MIB = 600


class HashedTar:
    """A tar that is hashed as it is written."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = open(path, "wb", buffering=1 << 20)  # noqa: SIM115 - closed below
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)
        self._hash.update(data)

    def close(self) -> str:
        """Sync to disk; returns the sha256."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._hash.hexdigest()


def run_floor(corpus: Path, out: Path, verify: Verify) -> int:
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
            tar = HashedTar(out / f"{number // DOCS_PER_SHARD:09d}.tar")
        assert tar is not None  # noqa: S101 - the first record opens it
        parts = [line]
        for info in msgspec.json.decode(line)["image_info"]:
            data = (folder / info["image_name"]).read_bytes()
            if verify == "decode":
                data = prepare_image(data, policy).data
            parts += [hashlib.sha256(data).hexdigest().encode(), pybase64.b64encode(data)]
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
    from pipelines.config import ConvertMmc4
    from pipelines.convert_mmc4 import convert_mmc4

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


def measure(subject: Subject, corpus: Path, out: Path, verify: Verify) -> dict[str, float]:
    """One measurement, in this process: the imports are not timed."""
    import pyarrow.parquet

    import mmdata.images.prepare
    import pipelines.convert_mmc4  # noqa: F401

    del pyarrow, mmdata
    work = run_floor if subject == "floor" else run_converter
    wall, cpu = time.perf_counter(), time.process_time()
    num_images = work(corpus, out, verify)
    return {
        "images": num_images,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": peak_bytes() / 2**20,
    }


def peak_bytes() -> int:
    """High-water mark of this process's memory (ru_maxrss can be the parent's on Linux)."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


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
    for path in corpus.rglob("*"):
        if path.is_file():
            path.read_bytes()
    return corpus


def compare(corpus: Path, verify: Verify, runs: int) -> list[str]:
    """Measure floor and converter by turns; returns rows of the table."""
    found: dict[Subject, list[dict[str, float]]] = {"floor": [], "converter": []}
    for run in range(runs):
        for subject in found:
            figures = measure_apart(subject, corpus, verify)
            found[subject].append(figures)
            rate = figures["images"] / figures["seconds"]
            print(f"  {verify:<8}{subject:<11}run {run + 1}: {rate:8,.0f} images/s", flush=True)
    floor = _median_rate(found["floor"])
    rows = []
    for subject, measured in found.items():
        rate = _median_rate(measured)
        rates = [one["images"] / one["seconds"] for one in measured]
        label = "none" if subject == "floor" and verify == "header" else verify
        rows.append(
            f"{subject:<11}{label:<8}{rate:>10,.0f}{f'{min(rates):,.0f}-{max(rates):,.0f}':>18}"
            f"{median(one['cpu_seconds'] for one in measured):>10.2f}"
            f"{rate / floor:>10.2f}{AIMS[verify] if subject == 'converter' else '':>8}"
            f"{max(one['peak_mib'] for one in measured):>10.0f}"
        )
    return rows


def _median_rate(measured: list[dict[str, float]]) -> float:
    return median(one["images"] / one["seconds"] for one in measured)


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--docs", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3, help="of each, by turns")
    parser.add_argument(
        "--folder", type=Path, default=Path(os.environ.get("MMDATA_BENCH_DIR", ".bench"))
    )
    parser.add_argument("--measure", choices=("floor", "converter"), help=argparse.SUPPRESS)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--verify", choices=("header", "decode"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """The command line: the whole table, or (in a process of its own) one measurement."""
    options = _arguments()
    if options.measure:
        figures = measure(options.measure, options.corpus, options.out, options.verify)
        print(json.dumps(figures))
        return
    corpus = ready_corpus(options.folder.resolve(), options.docs)
    facts = json.loads((corpus / "corpus.json").read_text(encoding="utf-8"))
    rows = [row for verify in ("decode", "header") for row in compare(corpus, verify, options.runs)]
    print(
        f"\n{facts['documents']:,} documents, {facts['images']:,} images, "
        f"{facts['image_bytes'] / 1e6:,.0f} MB; medians of {options.runs} runs, one process each"
    )
    print(
        f"{'':<11}{'verify':<8}{'images/s':>10}{'range':>18}{'cpu s':>10}{'x floor':>10}{'aim':>8}"
        f"{'peak MiB':>10}"
    )
    print("\n".join(rows))
    print(f"peak memory of the converter: aim under {AIM_MEMORY_MIB} MiB")


if __name__ == "__main__":
    main()
