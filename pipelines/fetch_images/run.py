"""fetch-images: download what MMC4 documents name, into the folders that convert-mmc4 looks in.

`<output>/<shard number>/NAME` (`<output>/<file stem>/NAME` without a number), the bytes as they
came, so that convert-mmc4 decides what becomes of them; only what is no picture at all is left
out. An image that is there is not fetched again, so the same command goes on where it stopped.
When a file of documents is through, `<file stem>.outcomes.parquet` says how each download ended.

Images are renamed into place whole, but synced only once a file of documents: a killed run costs
nothing, after a power cut empty files are fetched again and others checked by convert-mmc4.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mmdata.errors import EXIT_DONE, EXIT_FINDINGS, EXIT_INTERRUPTED, BadInputError, UserError
from mmdata.fetch.ahead import Fetcher, check_installed
from mmdata.fetch.outcome import Fetched, FetchStatus
from mmdata.fetch.policy import FetchPolicy
from mmdata.images import ImageRejected
from mmdata.images.sniff import sniff
from mmdata.shards.naming import OUTCOMES
from mmdata.shards.writer import LeaseLostError
from mmdata.sources import mmc4
from mmdata.sources.base import RecordDropped, SourceImage
from mmdata.sources.image_folder import is_inside
from mmdata.sources.mmc4 import shard_name
from mmdata.sources.names import check_name
from mmdata.sources.records import SUFFIXES, Overlong, Segment, list_segments, read_records
from mmdata.storage.atomic import is_temporary, remove, write_atomically
from mmdata.storage.files import facts_of
from mmdata.storage.lease import Lease, holds
from mmdata.storage.paths import expand_paths
from mmdata.storage.urls import absolute, is_url
from pipelines.downloads.outcomes import KEPT, is_failed, outcome_row, read_table, write_table
from pipelines.engine.events import RateLimit, Tick, UnitFailure
from pipelines.engine.progress import Progress
from pipelines.engine.run_units import choose_workers, run_units, terminate_as_interrupt
from pipelines.fetch_images.options import FetchImages
from schemas.reasons import ImageDrop

#: `status` of an image that was in the folder already.
THERE = "there"
#: How it ends where nothing was asked, since the URL may not be.
REFUSED = (FetchStatus.PRIVATE_ADDRESS.value, FetchStatus.BAD_URL.value)
_TICK_IMAGES = 50


@dataclass(slots=True)
class FetchResult:
    """What a run came to.

    Attributes:
        output: the folder.
        counts: images by how they ended: `ok`, `there`, or why not.
        image_bytes: of those fetched now.
        files_kept: files of documents that were through before.
        failures: files of documents that could not be worked through.
        interrupted: Ctrl-C or SIGTERM.
        seconds: how long it took.
    """

    output: str
    counts: Counter[str] = field(default_factory=Counter)
    image_bytes: int = 0
    files_kept: int = 0
    failures: list[tuple[str, UnitFailure]] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def all_refused(self) -> bool:
        """Whether there were images, and no URL of them may be asked."""
        asked = {status for status, count in self.counts.items() if count}
        return bool(asked) and asked <= {*REFUSED}

    @property
    def exit_code(self) -> int:
        """0 done, 1 some files failed or no URL may be asked, 3 interrupted."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        return EXIT_FINDINGS if self.failures or self.all_refused else EXIT_DONE


@dataclass(frozen=True, slots=True)
class _FileTask:
    """A file of documents."""

    path: str
    output: str
    table: str
    policy: FetchPolicy
    retry_failed: bool
    max_record_bytes: int
    lease_path: str
    run: str


@dataclass(frozen=True, slots=True)
class _Counts:
    """Progress since the last."""

    counts: dict[str, int]
    image_bytes: int


@dataclass(slots=True)
class _Target:
    """An image: where it goes, and why it is not fetched."""

    name: str
    url: str
    path: str = ""
    result: str = ""
    detail: str = ""

    @property
    def wanted(self) -> str | None:
        """The URL to ask, or None."""
        return self.url if not self.result else None


def fetch_images(options: FetchImages, *, quiet: bool = False) -> FetchResult:
    """Download the images of documents; the same call again goes on where it stopped.

    Raises:
        UserError: it cannot start as asked.
        BadInputError: inputs are missing or damaged; all of them are named.
        MissingExtraError: aiohttp is not installed.
    """
    check_installed()
    if is_url(options.output):
        raise UserError(f"--output {options.output}: images go to a folder on a disk")
    paths = _inputs(options)
    output = os.path.abspath(options.output)
    result = FetchResult(output)
    os.makedirs(output, exist_ok=True)
    with terminate_as_interrupt(), Lease(output) as lease:
        tasks = [
            _FileTask(
                path,
                output,
                os.path.join(output, name + OUTCOMES),
                options.fetch_policy(),
                options.retry_failed,
                options.max_record_bytes,
                lease.path,
                lease.holder.run,
            )
            for path, name in paths.items()
        ]
        todo = [task for task in tasks if options.retry_failed or not _is_through(task)]
        result.files_kept = len(tasks) - len(todo)
        seconds = 0.0 if len(todo) < 2 else float("inf")
        workers = choose_workers(options.workers, seconds, options.ray_address)
        with Progress("fetch", total=0, quiet=quiet or not todo, unit="image") as progress:
            try:
                events = run_units(
                    _fetch_file, todo, workers=workers, ray_address=options.ray_address
                )
                with closing(events):
                    for index, event in events:
                        if isinstance(event, UnitFailure):
                            result.failures.append((todo[index].path, event))
                        elif isinstance(event, _Counts):
                            result.counts.update(event.counts)
                            result.image_bytes += event.image_bytes
                            number = sum(event.counts.values())
                            progress.advance(Tick(number, number, event.image_bytes, 0))
            except KeyboardInterrupt:
                result.interrupted = True
            result.seconds = progress.seconds
    return result


def _inputs(options: FetchImages) -> dict[str, str]:
    """Files of documents, each with the stem of its table; all that is wrong is named at once."""
    if not options.docs:
        raise UserError("no input was named: give files, folders, globs or {0..9} ranges")
    found = expand_paths(options.docs, SUFFIXES)
    problems = [f"{path}: {problem}" for path, problem in found.problems]
    names: dict[str, str] = {}
    for path in dict.fromkeys(map(absolute, found.files)):
        name = os.path.basename(path).split(".jsonl")[0]
        try:
            list_segments(path)
        except BadInputError as error:
            problems.append(str(error))
        if name in names.values():
            problems.append(f"{path}: another input has the same name")
        names[path] = name
    if problems:
        raise BadInputError("\n  ".join(problems))
    return names


def _identity(path: str) -> bytes:
    facts = facts_of(path)
    return f"{facts.size}-{facts.version}".encode()


def _is_through(task: _FileTask) -> bool:
    """Whether a run has come to the end of this file as it is now."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(task.table).metadata or {}
    except (OSError, pa.ArrowException):
        return False
    return bool(metadata.get(b"mmdata.input") == _identity(task.path))


def _fetch_file(task: _FileTask) -> Iterator[_Counts]:
    """Fetch the images of one file of documents, and write its table."""
    before = {row["key"]: row for row in read_table(task.table)}
    rows: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    num_bytes, limit = 0, RateLimit()
    with Fetcher(task.policy) as fetcher:
        targets = _targets(task, before)
        for target, fetched in fetcher.fetched(targets, lambda target: target.wanted):
            row = _stored(target, fetched, before)
            rows.append(row)
            ok = row["result"] == KEPT and fetched is not None
            counts["ok" if ok else row["status"] if row["status"] != "ok" else row["result"]] += 1
            num_bytes += row["bytes"] if ok else 0
            if len(rows) % _TICK_IMAGES == 0 or limit.due():
                yield _Counts(dict(counts), num_bytes)
                counts, num_bytes = Counter(), 0
    if not holds(task.lease_path, task.run):
        raise LeaseLostError(f"{task.output}: another run has taken over; nothing is lost")
    os.sync()
    write_atomically(task.table, write_table(rows, {"mmdata.input": _identity(task.path)}))
    yield _Counts(dict(counts), num_bytes)


def _targets(task: _FileTask, before: dict[str, dict[str, Any]]) -> Iterator[_Target]:
    """The images of a file's documents, each name once."""
    seen: set[str] = set()
    for segment in list_segments(task.path):
        folder = _folder(task, segment)
        for record in read_records(segment, task.max_record_bytes):
            if isinstance(record, Overlong):
                continue
            try:
                document = mmc4.parse_record(record, matrix_wanted=False)
            except RecordDropped:
                continue  # convert-mmc4 will count and name it
            for image in document.images:
                if image.name not in seen:
                    seen.add(image.name)
                    yield _target(image, folder, before.get(image.name))


def _folder(task: _FileTask, segment: Segment) -> str:
    """Where a segment's images go; swept of what a killed run left."""
    name = shard_name(segment)
    folder = os.path.join(task.output, name.number or name.stem)
    os.makedirs(folder, exist_ok=True)
    remove(os.path.join(folder, left) for left in os.listdir(folder) if is_temporary(left))
    return folder


def _target(image: SourceImage, folder: str, before: dict[str, Any] | None) -> _Target:
    target = _Target(image.name, _url(image))
    try:
        if image.problem:
            raise ImageRejected(ImageDrop.MISSING, image.problem)
        check_name(image.name)
    except ImageRejected as rejected:
        target.result, target.detail = str(rejected.reason), rejected.detail
        return target
    target.path = os.path.join(folder, image.name)
    if not is_inside(os.path.realpath(os.path.dirname(target.path)), os.path.realpath(folder)):
        target.result, target.detail = "unsafe-path", "a link leads out of the folder"
    elif os.path.lexists(target.path) and (
        os.path.islink(target.path) or os.path.getsize(target.path)
    ):
        target.result = THERE
    elif not target.url:
        target.result, target.detail = "no-url", "$.raw_url: expected a URL, got nothing"
    elif before is not None and not is_failed(before) and before["result"] != KEPT:
        target.result, target.detail = before["result"], before["detail"]
    return target


def _url(image: SourceImage) -> str:
    try:
        return msgspec.json.decode(image.fields.get("raw_url", b'""'), type=str).strip()
    except msgspec.DecodeError:
        return ""


def _stored(
    target: _Target, fetched: Fetched | None, before: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Write a picture, and the row that says what came of it."""
    if fetched is None:
        result = KEPT if target.result == THERE else target.result
        if target.name in before and before[target.name]["result"] == result:
            return before[target.name]
        row = outcome_row(target.name, target.url, None, "", result, target.detail)
        return row | {"status": THERE} if target.result == THERE else row
    if fetched.status != FetchStatus.OK:
        return outcome_row(target.name, target.url, fetched, "", fetched.status.value, "")
    sha256 = hashlib.sha256(fetched.data).hexdigest()
    try:
        sniff(fetched.data)
    except ImageRejected as rejected:
        reason, detail = str(rejected.reason), rejected.detail
        return outcome_row(target.name, target.url, fetched, sha256, reason, detail)
    os.makedirs(os.path.dirname(target.path), exist_ok=True)
    write_atomically(target.path, fetched.data, durable=False)
    return outcome_row(target.name, target.url, fetched, sha256, KEPT, "")
