"""`--fetcher img2dataset`: let img2dataset download a shard's URLs, and take over its files.

It runs in a process of its own, re-encoding off, on the URLs that pass our check of scheme and
address; what it returns is checked and written like any download. It follows redirects without
looking where they lead, resolves names anew when it connects, knows no limits per host or of
bytes, and does not heed `Retry-After`.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from mmdata.dependencies import require
from mmdata.errors import MMDataError
from mmdata.fetch.outcome import Fetched, FetchError, FetchStatus
from mmdata.fetch.policy import FetchPolicy
from mmdata.shards.reader import ShardReader
from pipelines.engine.events import SIGN_SECONDS, Alive
from pipelines.laion.rows import Place

NO_GUARANTEES = (
    "note: --fetcher img2dataset has none of our fetcher's guarantees: redirects to private "
    "addresses, limits per host, of bytes and of time, Retry-After, one outcome a try"
)
#: A run that goes on for so much longer than its URLs can take hangs.
_PATIENCE_SECONDS = 600.0
_TAIL_CHARACTERS = 500


class Img2datasetError(MMDataError):
    """img2dataset failed as a whole."""

    exit_code = 1


def check_installed() -> None:
    """Raise MissingExtraError where it is not there."""
    require("download", ("img2dataset", "aiohttp"), "--fetcher img2dataset")


class Img2dataset(AbstractContextManager["Img2dataset"]):
    """Downloads a shard at a time.

    Args:
        policy: time, retries, user agent, noai and number of requests are handed on; the rest
            img2dataset does not know.
    """

    def __init__(self, policy: FetchPolicy) -> None:
        self._policy = policy

    def __exit__(self, *_: object) -> None:
        return None

    def fetched(
        self, items: Iterator[Place], url_of: Callable[[Place], str | None]
    ) -> Iterator[tuple[Place, Fetched | None] | Alive]:
        """Every item with what came of its URL, in order; all are asked before the first comes."""
        places = list(items)
        refused: dict[int, Fetched] = {}
        wanted: dict[int, str] = {}
        for number, place in enumerate(places):
            url = url_of(place)
            if url:
                problem = self._problem(url)
                if problem is None:
                    wanted[number] = url
                else:
                    refused[number] = problem
        with tempfile.TemporaryDirectory(prefix="mmdata-img2dataset-") as folder:
            results: Iterator[tuple[int, Fetched]] = iter(())
            if wanted:
                yield from self._download(Path(folder), wanted)
                results = _read(Path(folder) / "out")
            found = next(results, None)
            for number, place in enumerate(places):
                result = refused.get(number)
                if found is not None and found[0] == number:
                    result, found = found[1], next(results, None)
                elif number in wanted:
                    result = Fetched(FetchStatus.PROTOCOL, detail="img2dataset says nothing of it")
                yield place, result

    def _problem(self, url: str) -> Fetched | None:
        """Why a URL is not handed on."""
        from mmdata.fetch.addresses import check_resolved

        try:
            check_resolved(url, allow_private=self._policy.allow_private_hosts)
        except FetchError as error:
            return Fetched(error.status, detail=error.detail)
        return None

    def _download(self, folder: Path, wanted: dict[int, str]) -> Iterator[Alive]:
        """Have it download all of them."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({"url": list(wanted.values()), "number": list(wanted)})
        pq.write_table(table, folder / "urls.parquet")
        arguments = _arguments(folder, self._policy, len(wanted))
        yield from _run(arguments, self._seconds(len(wanted)))

    def _seconds(self, urls: int) -> float:
        tries = self._policy.timeout * (self._policy.retries + 1)
        return _PATIENCE_SECONDS + tries * 2 * (1 + urls / self._policy.concurrency)


def _arguments(folder: Path, policy: FetchPolicy, urls: int) -> dict[str, Any]:
    """The arguments of `img2dataset.download`."""
    return {
        "url_list": str(folder / "urls.parquet"),
        "output_folder": str(folder / "out"),
        "input_format": "parquet",
        "output_format": "webdataset",
        "url_col": "url",
        "save_additional_columns": ["number"],
        "processes_count": 1,
        "thread_count": policy.concurrency,
        "number_sample_per_shard": urls,
        "resize_mode": "no",
        "disable_all_reencoding": True,
        "extract_exif": False,
        "compute_hash": None,
        "enable_wandb": False,
        "timeout": max(1, round(policy.timeout)),
        "retries": policy.retries,
        "user_agent_token": policy.user_agent.partition("/")[0],
        "disallowed_header_directives": [] if policy.ignore_noai else ["noai", "noimageai"],
    }


def _run(arguments: dict[str, Any], seconds: float) -> Iterator[Alive]:
    """img2dataset in a process of its own, which is ended where it hangs."""
    command = [sys.executable, "-W", "ignore", "-m", "pipelines.laion.img2dataset"]
    environment = os.environ | {
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=environment,
        start_new_session=True,  # so that its own processes end with it
    )
    deadline = time.monotonic() + seconds
    given: str | None = json.dumps(arguments)
    try:
        while True:
            try:
                told, wrong = process.communicate(given, timeout=SIGN_SECONDS)
                break
            except subprocess.TimeoutExpired:
                given = None
                if time.monotonic() > deadline:
                    detail = f"img2dataset hangs: not done after {seconds:.0f} s"
                    raise Img2datasetError(detail) from None
                yield Alive()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode:
        tail = " ".join((wrong or told).split())[-_TAIL_CHARACTERS:]
        raise Img2datasetError(f"img2dataset failed ({process.returncode}): {tail}")


def _read(folder: Path) -> Iterator[tuple[int, Fetched]]:
    """What it wrote, in the order of the URLs, which is that of its keys."""
    import pyarrow.parquet as pq

    for table in sorted(folder.glob("*.parquet")):
        with ShardReader(table.with_suffix(".tar")) as reader:
            columns = ["key", "number", "status", "error_message"]
            rows = pq.read_table(table, columns=columns, pre_buffer=False)
            for row in sorted(rows.to_pylist(), key=lambda row: int(row["number"])):
                yield int(row["number"]), _result(row, reader)


def _result(row: dict[str, Any], reader: ShardReader) -> Fetched:
    if row["status"] == "success" and row["key"] in reader:
        members = reader.read(row["key"]).members
        image = next((data for kind, data in members.items() if kind not in ("json", "txt")), None)
        if image is not None:
            return Fetched(FetchStatus.OK, bytes(image), 200, 1)
    detail = f"{row['status']}: {row['error_message']}"[:200]
    return Fetched(_status(str(row["error_message"])), attempts=1, detail=detail)


def _status(message: str) -> FetchStatus:
    """The status that a message of img2dataset's stands for; they are those of urllib."""
    text = message.lower()
    for part, status in (
        ("http error", FetchStatus.HTTP_ERROR),
        ("timed out", FetchStatus.TIMEOUT),
        ("name or service", FetchStatus.DNS),
        ("name resolution", FetchStatus.DNS),
        ("certificate", FetchStatus.TLS),
        ("ssl", FetchStatus.TLS),
        ("robots", FetchStatus.NOAI),
        ("disallowed", FetchStatus.NOAI),
    ):
        if part in text:
            return status
    return FetchStatus.CONNECT


if __name__ == "__main__":
    from img2dataset import download

    download(**json.load(sys.stdin))
