"""`make bench`: convert-laion's fetcher against img2dataset, one process each, over loopback.

The server runs in a process of its own and answers from memory with pictures of about 50 kB. Ours
is `mmdata convert-laion --layout pairs --workers 0`: fetched, strictly verified, hashed, written,
start of the interpreter included. img2dataset runs with one process, its threads as they come and
re-encoding off, so that it neither decodes nor checks; its rate is by its own clock, without its
start. Over https, as most of the web is, it builds a TLS context for every URL (20 to 30 ms of a
core); over http it does not, and there is nothing to gain but safety: both are shown.

CPU is that of the process and its children, by image; memory is the high-water mark, of 20,000
images and of a quarter of them, to see that it does not grow. Aims, over https: 10 times the rate
of img2dataset; memory within 15%.

    python -m benchmarks.fetch [--ours 20000] [--theirs 2000]
"""

import argparse
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.gates import Gate, print_gates

AIM_RATIO = 10.0
AIM_GROWTH = 1.15

_OURS = """
import resource, sys
from pipelines.laion.run import convert_laion
from pipelines.laion.options import ConvertLaion
options = ConvertLaion(inputs=(sys.argv[1],), output=sys.argv[2], layout="pairs", workers=0,
                       allow_private_hosts=True, per_host=64, docs_per_shard=2000)
result = convert_laion(options, quiet=True)
assert result.exit_code == 0 and result.tally.images == int(sys.argv[3]), result.tally
own = resource.getrusage(resource.RUSAGE_SELF)
print(own.ru_maxrss, own.ru_utime + own.ru_stime)
"""
_THEIRS = """
import resource, sys
from img2dataset import download
if __name__ == "__main__":
    download(url_list=sys.argv[1], output_folder=sys.argv[2], input_format="parquet",
             output_format="webdataset", url_col="URL", caption_col="TEXT", processes_count=1,
             number_sample_per_shard=int(sys.argv[3]), resize_mode="no",
             disable_all_reencoding=True, enable_wandb=False)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(used.ru_maxrss, used.ru_utime + used.ru_stime)
"""


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        images: that arrived.
        seconds: it took.
        cpu_seconds: of all its processes.
        memory_mib: high-water mark of the largest.
    """

    images: int
    seconds: float
    cpu_seconds: float
    memory_mib: float

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds

    def row(self, name: str) -> str:
        cpu = 1000 * self.cpu_seconds / self.images
        return (
            f"{name:<24}{self.images:>8,}{self.seconds:>9.1f}{self.rate:>10,.0f}{cpu:>12.2f}"
            f"{self.memory_mib:>10,.0f}"
        )


@contextmanager
def server(certificate: tuple[Path, ...] = ()) -> Iterator[tuple[int, int]]:
    """(port, bytes of a picture) of a running server; with a certificate it speaks https."""
    command = [sys.executable, "-m", "benchmarks.image_server", *map(str, certificate)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        port, size = (process.stdout.readline() if process.stdout else "").split()
        yield int(port), int(size)
    finally:
        process.kill()
        process.communicate()


def make_certificate(folder: Path) -> tuple[Path, ...]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    paths = (folder / "certificate.pem", folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-out", str(paths[0]), "-keyout", str(paths[1])]
    subprocess.run(command, check=True, capture_output=True)
    return paths


def trusted(folder: Path, certificate: Path) -> Path:
    """What this machine trusts, and the certificate: loading it is what a TLS context costs."""
    bundle = folder / "trusted.pem"
    system = ssl.get_default_verify_paths().cafile
    known = Path(system).read_bytes() if system else b""
    bundle.write_bytes(known + certificate.read_bytes())
    return bundle


def measure(script: str, folder: Path, site: str, images: int) -> tuple[float, list[str]]:
    """(wall seconds, what it printed last) of a script over so many URLs."""
    table = folder / f"{images}.parquet"
    urls = [f"{site}/{number}.jpg" for number in range(images)]
    pq.write_table(pa.table({"URL": urls, "TEXT": [f"picture {n}" for n in range(images)]}), table)
    program = folder / "run.py"
    program.write_text(script)
    environment: dict[str, Any] = os.environ | {
        "PYTHONPATH": os.getcwd(),
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "PYTHONWARNINGS": "ignore",
    }
    start = time.monotonic()
    command = [sys.executable, str(program), str(table), str(folder / "out"), str(images)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.monotonic() - start, done.stdout.strip().splitlines()[-1].split()


def ours(site: str, images: int) -> Measured:
    """convert-laion over so many URLs."""
    with tempfile.TemporaryDirectory() as name:
        seconds, (memory, cpu) = measure(_OURS, Path(name), site, images)
    return Measured(images, seconds, float(cpu), int(memory) / 1024)


def theirs(site: str, images: int) -> Measured:
    """img2dataset over so many URLs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, (memory, cpu) = measure(_THEIRS, folder, site, images)
        stats = json.loads((folder / "out" / "00000_stats.json").read_text())
    return Measured(
        int(stats["successes"]),
        float(stats["end_time"]) - float(stats["start_time"]),
        float(cpu),
        int(memory) / 1024,
    )


def bench(num_ours: int = 20_000, num_theirs: int = 2_000) -> list[Gate]:
    """Run both over http and https, print the tables."""
    before = os.environ.get("SSL_CERT_FILE")
    with tempfile.TemporaryDirectory() as name:
        certificate = make_certificate(Path(name))
        os.environ["SSL_CERT_FILE"] = str(trusted(Path(name), certificate[0]))
        try:
            compare("http", (), num_ours // 4, num_theirs)
            ratio, growth = compare("https", certificate, num_ours, num_theirs)
        finally:
            os.environ.pop("SSL_CERT_FILE")
            if before is not None:
                os.environ["SSL_CERT_FILE"] = before
    return [
        Gate("images/s over https, times img2dataset's", ratio, AIM_RATIO),
        Gate("memory of 20,000 images, times that of 5,000", growth, AIM_GROWTH, at_most=True),
    ]


def compare(
    scheme: str, certificate: tuple[Path, ...], num_ours: int, num_theirs: int
) -> tuple[float, float]:
    """Run both against a server, print the table; (ratio of rates, growth of memory)."""
    with server(certificate) as (port, size):
        site = f"{scheme}://127.0.0.1:{port}"
        print(f"pictures of {size:,} bytes over {scheme} on loopback, one process each")
        print(f"{'':<24}{'images':>8}{'s':>9}{'images/s':>10}{'CPU ms/image':>13}{'MiB':>9}")
        quarter = ours(site, num_ours // 4)
        print(quarter.row("convert-laion, a quarter"), flush=True)
        whole = ours(site, num_ours)
        print(whole.row("convert-laion"), flush=True)
        other = theirs(site, num_theirs)
        print(other.row("img2dataset"), flush=True)
    ratio, growth = whole.rate / other.rate, whole.memory_mib / quarter.memory_mib
    print(f"{ratio:.1f} times img2dataset's rate; memory x {growth:.2f}")
    return ratio, growth


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="convert-laion's fetcher against img2dataset")
    parser.add_argument("--ours", type=int, default=20_000)
    parser.add_argument("--theirs", type=int, default=2_000)
    options = parser.parse_args()
    gates = bench(options.ours, options.theirs)
    print_gates(gates)
    return 0 if all(gate.passed for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
