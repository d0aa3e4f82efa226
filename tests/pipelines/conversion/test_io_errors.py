"""Disks that fail: the unit fails with the name of the file, the others go on, and so does a rerun.

Reading `/proc/self/mem` at its start is a real EIO. A disk that cannot write tells it at fsync, or
at a write, in a process that runs the command with that call failing.
"""

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mmdata.errors import ReadFaultError
from mmdata.sources.image_folder import find_folders
from mmdata.sources.tar_images import TarImages
from mmdata.validation.report import ValidationReport
from pipelines.mmc4.run import convert_mmc4
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.corpus import (
    Corpus,
    check_nothing_half_written,
    leftovers,
    make_corpus,
    rejects_of,
    run_cli,
    run_here,
    snapshot,
)
from tests.processes import hooked

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/mem"),
]

BROKEN = "/proc/self/mem"


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Two inputs, so two units, of 12 records each."""
    return make_corpus(tmp_path / "corpus", records=24, files=2, suffix=".jsonl")


@pytest.fixture
def reference(corpus: Corpus, tmp_path: Path) -> dict[str, str]:
    output = tmp_path / "reference"
    convert_mmc4(corpus.options(output, docs_per_shard=4), quiet=True)
    return snapshot(output)


def command(corpus: Corpus, output: Path, *more: str) -> list[str]:
    return corpus.command(output, "--docs-per-shard", "4", "--workers", "0", *more)


def words(text: str) -> str:
    return " ".join(text.split())


def run_again(corpus: Corpus, output: Path, reference: dict[str, str], *more: str) -> None:
    check_nothing_half_written(output)
    assert leftovers(output) == []
    assert not (output / "manifest.json").exists()
    done = run_here(command(corpus, output, *more))
    assert done.returncode == 0, done.stdout + done.stderr
    assert snapshot(output) == reference


def test_an_image_that_the_disk_does_not_hand_out_is_not_dropped(
    corpus: Corpus, reference: dict[str, str], tmp_path: Path
) -> None:
    """A dying disk would else thin out the data, and the run would call itself done."""
    output = tmp_path / "out"
    image = Path(corpus.images) / "1" / "0011_1.jpg"
    kept = image.read_bytes()
    image.unlink()
    image.symlink_to(BROKEN)
    more = ("--allow-symlinks-to", "/proc")
    done = run_cli(command(corpus, output, *more))
    assert done.returncode == 1, done.stdout + done.stderr
    said = words(done.stdout)
    assert "docs_no_face_shard_1_v2.jsonl: record 5: /proc/" in said
    assert "/mem: cannot be read: Input/output error; that is the disk's or the machine's" in said
    assert said.count("failed: ") == 1  # the other input's unit is done
    assert len(list(output.glob("[0-9]*.json"))) == 4  # 3 shards of that, 1 before the record
    assert "unreadable" not in {reject["reason"] for reject in rejects_of(output)}
    image.unlink()
    image.write_bytes(kept)
    run_again(corpus, output, reference, *more)


def test_an_input_that_the_disk_does_not_hand_out_is_named_before_the_start(
    corpus: Corpus, tmp_path: Path
) -> None:
    broken = tmp_path / "docs_no_face_shard_9_v2.jsonl"
    broken.symlink_to(BROKEN)
    both = Corpus((*corpus.docs, str(broken)), corpus.images, 0)
    done = run_cli(command(both, tmp_path / "out"))
    assert done.returncode == 2
    assert f"{broken}: cannot be read: Input/output error" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_input_whose_disk_fails_half_way_fails_its_unit(
    corpus: Corpus, reference: dict[str, str], tmp_path: Path
) -> None:
    """Counted whole, then gone bad."""
    output = tmp_path / "out"
    bad = Path(corpus.docs[0])
    then_fail = (
        "import os\n"
        "import pipelines.conversion.run_plan as convert\n"
        "save = convert.save_plan\n"
        "def then_fail(*arguments):\n"
        "    save(*arguments)\n"
        f"    os.rename({str(bad)!r}, {str(bad) + '.kept'!r})\n"
        f"    os.symlink({BROKEN!r}, {str(bad)!r})\n"
        "convert.save_plan = then_fail\n"
    )
    done = run_cli(hooked(command(corpus, output), then_fail))
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"failed: {bad}: {bad}: cannot be read: [Errno 5]" in words(done.stdout)
    assert len(list(output.glob("[0-9]*.json"))) == 3
    bad.unlink()
    Path(f"{bad}.kept").rename(bad)
    run_again(corpus, output, reference)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("fsync", "EIO"),
        ("replace", "ESTALE"),
        pytest.param("fsync", "ESTALE", marks=pytest.mark.matrix),
        pytest.param("replace", "EIO", marks=pytest.mark.matrix),
    ],
)
def test_a_disk_that_does_not_take_a_shard_fails_its_unit(
    call: str, code: str, corpus: Corpus, reference: dict[str, str], tmp_path: Path
) -> None:
    """The second shard's tar; its unit ends there, the other input's is done."""
    output = tmp_path / "out"
    failing = (
        "import errno, os\n"
        f"real = os.{call}\n"
        "def failing(what, *more):\n"
        "    name = os.readlink(f'/proc/self/fd/{what}') if isinstance(what, int) else what\n"
        "    if '000000001.tar' in str(name):\n"
        f"        raise OSError(errno.{code}, os.strerror(errno.{code}))\n"
        "    return real(what, *more)\n"
        f"os.{call} = failing\n"
    )
    done = run_cli(hooked(command(corpus, output), failing))
    assert done.returncode == 1, done.stdout + done.stderr
    said = words(done.stdout)
    assert f"failed: {corpus.docs[0]}: OSError: [Errno {getattr(errno, code)}]" in said
    assert said.count("failed: ") == 1
    assert sorted(path.stem for path in output.glob("[0-9]*.json")) == [
        *("000000000", "000000003", "000000004", "000000005")
    ]
    run_again(corpus, output, reference)


@pytest.fixture
def shards(corpus: Corpus, tmp_path: Path) -> Path:
    convert_mmc4(corpus.options(tmp_path / "shards", docs_per_shard=4), quiet=True)
    return tmp_path / "shards"


def found(report: ValidationReport) -> list[Sequence[str]]:
    return [(Path(f.shard).name, f.code, f.got) for f in report.findings if f.code == "TAR012"]


@pytest.mark.parametrize(
    "workers", [0, pytest.param(2, marks=[pytest.mark.slow, pytest.mark.matrix, pytest.mark.ray])]
)
def test_a_shard_that_the_disk_does_not_hand_out_is_a_finding(workers: int, shards: Path) -> None:
    (shards / "000000002.tar").unlink()
    (shards / "000000002.tar").symlink_to(BROKEN)
    report = validate(Validate(shards=(str(shards),), workers=workers))
    assert report.exit_code == 1
    assert found(report) == [("000000002.tar", "TAR012", "[Errno 5] Input/output error")]
    assert report.shards == 6


class TestStores:
    """Each kind of image store tells the disk's faults from the image's."""

    def folder(self, root: Path) -> bytes:
        folder = find_folders(
            str(root), "0", "docs", named=True, pattern=None, allow_links_to=("/proc",),
            max_bytes=10**6,
        )  # fmt: skip
        return folder.read("a.jpg")

    def test_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").symlink_to(BROKEN)
        with pytest.raises(ReadFaultError, match="Input/output error") as caught:
            self.folder(tmp_path)
        assert caught.value.errno == errno.EIO

    def test_tars(self, tmp_path: Path) -> None:
        import tarfile

        path = tmp_path / "images.tar"
        (tmp_path / "a.jpg").write_bytes(b"image")
        with tarfile.open(path, "w") as tar:
            tar.add(tmp_path / "a.jpg", "a.jpg")
        store = TarImages((str(path),), 10**6)
        assert store.read("a.jpg").data == b"image"
        os.unlink(path)
        path.symlink_to(BROKEN)
        with pytest.raises(ReadFaultError, match=r"images\.tar: cannot be read: Input/output"):
            store.read("a.jpg")
