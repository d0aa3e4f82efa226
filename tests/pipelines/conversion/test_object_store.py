"""Conversions from and to an object store: the same bytes as on a disk, whatever happens to it."""

import functools
import http.server
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmdata.errors import UserError
from mmdata.shards.reader import ShardReader
from mmdata.storage.lease import Lease
from pipelines.conversion.status import status
from pipelines.conversion.status_options import Status
from pipelines.mmc4.run import convert_mmc4
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.corpus import Corpus, cli, environment, make_corpus, run_cli, snapshot
from tests.object_store import SECRET, ObjectStore

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), records=30, files=3)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Shards of about 40 MB, which go up in several parts."""
    folder = tmp_path_factory.mktemp("large")
    return make_corpus(folder, records=24, files=2, images=4, size=(900, 700))


@pytest.fixture(scope="module")
def reference(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return converted(corpus, tmp_path_factory.mktemp("reference") / "out", docs_per_shard=4)


@pytest.fixture(scope="module")
def large_reference(large: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return converted(large, tmp_path_factory.mktemp("reference") / "out")


def converted(corpus: Corpus, output: Path, **more: int) -> dict[str, str]:
    convert_mmc4(corpus.options(output, **more), quiet=True)
    return snapshot(output)


class TestWriting:
    def test_the_bytes_are_those_of_a_disk(
        self, object_store: ObjectStore, bucket: str, corpus: Corpus, reference: dict[str, str]
    ) -> None:
        done = run_cli(corpus.command(bucket, "--docs-per-shard", "4", "--workers", "0"))
        assert done.returncode == 0, done.stderr
        assert object_store.snapshot(bucket) == reference

    @pytest.mark.matrix
    @pytest.mark.ray
    def test_workers_write_there_too(
        self, object_store: ObjectStore, bucket: str, corpus: Corpus, reference: dict[str, str]
    ) -> None:
        done = run_cli(corpus.command(bucket, "--docs-per-shard", "4", "--workers", "2"))
        assert done.returncode == 0, done.stderr
        assert object_store.snapshot(bucket) == reference

    def test_a_shard_of_several_parts_leaves_no_upload_behind(
        self,
        object_store: ObjectStore,
        bucket: str,
        large: Corpus,
        large_reference: dict[str, str],
    ) -> None:
        result = convert_mmc4(large.options(bucket), quiet=True)
        assert result.complete
        assert object_store.snapshot(bucket) == large_reference
        assert uploads(object_store, bucket) == 0

    def test_the_same_command_again_writes_nothing(
        self, object_store: ObjectStore, bucket: str, corpus: Corpus
    ) -> None:
        convert_mmc4(corpus.options(bucket, docs_per_shard=4), quiet=True)
        times = modified(object_store, bucket)
        result = convert_mmc4(corpus.options(bucket, docs_per_shard=4), quiet=True)
        assert (result.shards_written, result.shards_left) == (0, 0)
        assert result.shards_kept == 9
        assert {name: times[name] for name in times if name.endswith(".tar")} == {
            name: when
            for name, when in modified(object_store, bucket).items()
            if name.endswith(".tar")
        }

    def test_a_shard_that_is_gone_is_written_again_and_only_that(
        self, object_store: ObjectStore, bucket: str, corpus: Corpus, reference: dict[str, str]
    ) -> None:
        convert_mmc4(corpus.options(bucket, docs_per_shard=4), quiet=True)
        object_store.fs.rm_file(f"{bucket}/000000003.tar")
        result = convert_mmc4(corpus.options(bucket, docs_per_shard=4), quiet=True)
        assert (result.shards_written, result.shards_kept) == (1, 8)
        assert object_store.snapshot(bucket) == reference

    def test_another_conversion_is_refused_or_replaced(
        self, object_store: ObjectStore, bucket: str, corpus: Corpus, reference: dict[str, str]
    ) -> None:
        convert_mmc4(corpus.options(bucket, docs_per_shard=30), quiet=True)
        with pytest.raises(UserError, match="holds another conversion"):
            convert_mmc4(corpus.options(bucket, docs_per_shard=4), quiet=True)
        convert_mmc4(corpus.options(bucket, docs_per_shard=4, overwrite=True), quiet=True)
        assert object_store.snapshot(bucket) == reference

    def test_duplicates_are_dropped_there_as_on_a_disk(
        self, object_store: ObjectStore, bucket: str, corpus: Corpus, tmp_path: Path
    ) -> None:
        twice = Corpus((*corpus.docs, copy_of(corpus.docs[0], tmp_path)), corpus.images, 40)
        more = {"docs_per_shard": 4, "dedupe": "exact"}
        convert_mmc4(twice.options(tmp_path / "out", **more), quiet=True)
        result = convert_mmc4(twice.options(bucket, **more), quiet=True)
        assert result.tally.documents_dropped["duplicate-document"] > 0
        assert object_store.snapshot(bucket) == snapshot(tmp_path / "out")


class TestReading:
    def test_inputs_and_images_may_be_there(
        self, object_store: ObjectStore, bucket: str, corpus: Corpus, tmp_path: Path
    ) -> None:
        object_store.put_folder(Path(corpus.images).parent, bucket)
        far = Corpus((bucket,), f"{bucket}/images", 30)
        convert_mmc4(far.options(tmp_path / "far", docs_per_shard=4), quiet=True)
        convert_mmc4(corpus.options(tmp_path / "near", docs_per_shard=4), quiet=True)
        assert snapshot(tmp_path / "far") == snapshot(tmp_path / "near")

    @pytest.mark.parametrize("kind", ["tars", "parquet", "pattern"])
    def test_images_in_any_form_may_be_there(
        self, object_store: ObjectStore, bucket: str, corpus: Corpus, tmp_path: Path, kind: str
    ) -> None:
        more: dict[str, str] = {}
        images = Path(corpus.images)
        if kind == "pattern":
            object_store.put_folder(images, f"{bucket}/in")
            more["image_path"] = "{root}/{shard}/{image_name}"
        else:
            images = pack_images(Path(corpus.images), tmp_path / "packed", kind)
            object_store.put_folder(images, f"{bucket}/in")
        near = Corpus(corpus.docs, str(images), 30)
        convert_mmc4(near.options(tmp_path / "near", **more), quiet=True)
        far = Corpus(corpus.docs, f"{bucket}/in", 30)
        convert_mmc4(far.options(tmp_path / "far", **more), quiet=True)
        assert snapshot(tmp_path / "far") == snapshot(tmp_path / "near")

    def test_globs_and_ranges_are_expanded_there(
        self, object_store: ObjectStore, bucket: str, corpus: Corpus, tmp_path: Path
    ) -> None:
        object_store.put_folder(Path(corpus.images).parent, bucket)
        for number, spec in enumerate(
            ("docs_*_v2.jsonl.zip", "docs_no_face_shard_{0..2}_v2.jsonl.zip")
        ):
            far = Corpus((f"{bucket}/{spec}",), corpus.images, 30)
            result = convert_mmc4(far.options(tmp_path / str(number)), quiet=True)
            assert result.tally.records == 30

    def test_what_is_not_there_is_named(
        self, bucket: str, corpus: Corpus, tmp_path: Path, object_store: ObjectStore
    ) -> None:
        far = Corpus((f"{bucket}/gone.jsonl", f"{bucket}/none-*.jsonl"), corpus.images, 0)
        done = run_cli(far.command(tmp_path / "out"))
        assert done.returncode == 2
        assert f"{bucket}/gone.jsonl: no such file" in done.stderr
        assert f"{bucket}/none-*.jsonl: no file matches" in done.stderr
        assert not (tmp_path / "out").exists()

    def test_a_web_server_will_do(self, corpus: Corpus, tmp_path: Path, web: str) -> None:
        docs = tuple(f"{web}/{Path(path).name}" for path in corpus.docs)
        far = Corpus(docs, f"{web}/images", 30)
        convert_mmc4(far.options(tmp_path / "far"), quiet=True)
        convert_mmc4(corpus.options(tmp_path / "near"), quiet=True)
        assert snapshot(tmp_path / "far") == snapshot(tmp_path / "near")

    def test_shards_are_validated_shown_and_read_there(
        self, object_store: ObjectStore, bucket: str, corpus: Corpus
    ) -> None:
        convert_mmc4(corpus.options(bucket, docs_per_shard=4), quiet=True)
        report = validate(Validate(shards=(bucket,), workers=0))
        assert (report.exit_code, report.shards) == (0, 9)
        done = run_cli([*cli("show"), bucket])
        assert "Sentence 0 of document 0." in done.stdout
        with ShardReader(f"{bucket}/000000000.tar") as reader:
            assert [sample.key for sample in reader] == reader.keys != []

    def test_damage_is_found_there(
        self, object_store: ObjectStore, bucket: str, corpus: Corpus
    ) -> None:
        convert_mmc4(corpus.options(bucket, docs_per_shard=4), quiet=True)
        path = f"{bucket}/000000002.tar"
        data = bytearray(object_store.fs.cat_file(path))
        data[700] ^= 1
        object_store.fs.pipe_file(path, bytes(data))
        report = validate(Validate(shards=(bucket,), workers=0))
        assert report.exit_code == 1
        assert path in {finding.shard for finding in report.findings}


class TestFaults:
    def test_a_killed_run_leaves_uploads_that_the_next_one_aborts(
        self,
        object_store: ObjectStore,
        bucket: str,
        large: Corpus,
        large_reference: dict[str, str],
    ) -> None:
        process = begin(large, bucket)
        wait_until(lambda: uploads(object_store, bucket) > 0)
        process.kill()
        process.communicate()
        assert not [name for name in object_store.fs.find(bucket) if name.endswith(".tar")]
        left = status(Status(output=bucket))
        assert (left.state, left.leftovers) == ("crashed", 1)
        cleaned = status(Status(output=bucket, clean=True))
        assert (cleaned.cleaned, uploads(object_store, bucket)) == (1, 0)
        done = run_cli(large.command(bucket, "--workers", "0"))
        assert done.returncode == 0, done.stderr
        assert object_store.snapshot(bucket) == large_reference

    def test_a_store_that_comes_back_soon_is_waited_for(
        self, object_store: ObjectStore, bucket: str, large: Corpus, large_reference: dict[str, str]
    ) -> None:
        process = begin(large, bucket)
        wait_until(lambda: uploads(object_store, bucket) > 0)
        object_store.door.shut()
        time.sleep(3)
        object_store.door.open()
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert object_store.snapshot(bucket) == large_reference

    def test_a_store_that_stays_away_fails_the_run_and_the_next_one_goes_on(
        self, object_store: ObjectStore, bucket: str, large: Corpus, large_reference: dict[str, str]
    ) -> None:
        process = begin(large, bucket, AWS_MAX_ATTEMPTS="1")
        wait_until(lambda: uploads(object_store, bucket) > 0)
        object_store.door.shut()
        try:
            _, errors = process.communicate(timeout=300)
        finally:
            object_store.door.open()
        assert process.returncode == 1
        assert "Traceback" not in errors
        assert "the store failed" in errors
        assert SECRET not in errors
        assert not [name for name in object_store.fs.find(bucket) if name.endswith(".tar")]
        done = run_cli(large.command(bucket, "--workers", "0"))
        assert done.returncode == 0, done.stderr
        assert object_store.snapshot(bucket) == large_reference

    def test_two_runs_at_once_are_one_too_many(self, bucket: str, corpus: Corpus) -> None:
        with Lease(bucket), pytest.raises(UserError, match="another run is writing there"):
            convert_mmc4(corpus.options(bucket), quiet=True)

    def test_a_bucket_that_is_not_there_is_named(
        self, object_store: ObjectStore, corpus: Corpus
    ) -> None:
        done = run_cli(corpus.command("s3://no-such-bucket/out", "--workers", "0"))
        assert done.returncode == 2
        assert SECRET not in done.stderr + done.stdout
        assert "s3://no-such-bucket/out" in done.stderr
        assert "there is no such bucket" in done.stderr

    def test_lacking_credentials_are_one_line(self, corpus: Corpus) -> None:
        done = subprocess.run(
            corpus.command("s3://bucket/out", "--workers", "0"),
            capture_output=True,
            text=True,
            env={k: v for k, v in environment().items() if not k.startswith("AWS_")}
            | {"AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nowhere"},
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "Unable to locate credentials" in done.stderr


def begin(corpus: Corpus, output: str, **more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        corpus.command(output, "--workers", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | more,
    )


def uploads(store: ObjectStore, url: str) -> int:
    """How many uploads below a URL were begun and not completed."""
    prefix = url.removeprefix("s3://bucket/") + "/"
    page = store.fs.call_s3("list_multipart_uploads", Bucket="bucket", Prefix=prefix)
    return len(page.get("Uploads") or ())


def modified(store: ObjectStore, url: str) -> dict[str, object]:
    return {name: info["LastModified"] for name, info in store.fs.find(url, detail=True).items()}


def wait_until(done: "functools.partial[bool] | object", seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def copy_of(path: str, folder: Path) -> str:
    """The same input under another shard number, so that its documents come twice."""
    copy = folder / "docs_again.jsonl.zip"
    copy.write_bytes(Path(path).read_bytes())
    return str(copy)


def pack_images(images: Path, folder: Path, kind: str) -> Path:
    """A folder of images as tars or parquet files."""
    import tarfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    files = sorted(path for path in images.rglob("*.jpg"))
    if kind == "tars":
        with tarfile.open(folder / "a.tar", "w") as archive:
            for path in files:
                archive.add(path, path.name)
    else:
        table = pa.table(
            {"image_name": [p.name for p in files], "bytes": [p.read_bytes() for p in files]}
        )
        pq.write_table(table, folder / "a.parquet", row_group_size=20)
    return folder


@pytest.fixture
def web(corpus: Corpus) -> Iterator[str]:
    """The corpus behind a web server."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(Path(corpus.images).parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
