"""Shards of other tools: the trainer's stream yields what is in them, whatever was run on them.

What a sample is, says Python's own tarfile here: the members of a tar by key and extension. The
stream has to yield these, by key, text and picture, from the tar as it came, beside what `index`
writes, and from what `repair` and `align` make of it. The tars of other programs are in
`tests/assets/foreign_tars` (its README says how they were made).
"""

import gzip
import io
import json
import tarfile
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
import torch

from flamingo.data.decode import decode_image
from flamingo.data.shard_pool import ShardPool
from flamingo.data.stream import Stream
from mmdata.catalogue.shards import catalogue_stream
from mmdata.training_view.records import UnusableError
from mmdata.training_view.sequence import MediaTokenizer
from pipelines.align.options import Align
from pipelines.align.run import align
from pipelines.repair.index import index
from pipelines.repair.options import Index, Repair
from pipelines.repair.run import repair
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.clip_factory import make_clip
from tests.conftest import ROOT
from tests.shard_factory import encode, foreign, make_document, make_image

from .conftest import SIDE, config_of

ASSETS = ROOT / "tests" / "assets" / "foreign_tars"
FIXTURES = sorted(path.name.removesuffix(".tar.gz") for path in ASSETS.glob("*.tar.gz"))
LONG = "a_name_that_no_header_has_room_for_" * 4


class Yielded(NamedTuple):
    """A sample as the stream yields it."""

    key: str
    text: str
    pixels: list[list[int]]


def is_pairs(tar: bytes) -> bool:
    return any("txt" in members for _, members in samples_of(tar))


def samples_of(tar: bytes) -> list[tuple[str, dict[str, bytes]]]:
    """What a tar holds, as Python's tarfile reads it."""
    found: dict[str, dict[str, bytes]] = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        for member in opened:
            folder, slash, base = member.name.rpartition("/")
            stem, _, extension = base.partition(".")
            if member.isreg() and stem:
                file = opened.extractfile(member)
                assert file is not None
                found.setdefault(folder + slash + stem, {})[extension.lower()] = file.read()
    return list(found.items())


def expected_of(tar: bytes) -> list[tuple[str, list[str], list[bytes]]]:
    """(key, texts, pictures) of each sample that a stream should use."""
    rows = []
    for key, members in samples_of(tar):
        if is_pairs(tar):
            picture = next(data for kind, data in members.items() if kind not in ("txt", "json"))
            rows.append((key, [members["txt"].decode()], [picture]))
        else:
            document = json.loads(members["json"])
            images = sorted(document["image_info"], key=lambda image: image["matched_text_index"])
            pictures = [b64decode(image["image_base64"]) for image in images]
            rows.append((key, document["text_list"], pictures))
    return rows


def stream(folder: Path, tokenizer: MediaTokenizer) -> list[Yielded]:
    """Everything that one pass over the shards yields."""
    config = config_of(folder, batch_size=1, min_similarity=-1.0)
    found = []
    for batch in Stream(config, tokenizer, validation=True).batches():
        assert not batch.drops
        text = tokenizer.decode(batch.input_ids[0].tolist())
        found.append(Yielded(batch.keys[0], text, batch.pixels.flatten(1).tolist()))
    return found


def check(found: list[Yielded], tar: bytes, keys: dict[str, str] | None = None) -> None:
    """The stream yields what is in the tar.

    Args:
        keys: what each key of the tar is called by now; None: as it was.
    """
    expected = expected_of(tar)
    assert [one.key for one in found] == [(keys or {}).get(key, key) for key, _, _ in expected]
    for one, (_, texts, pictures) in zip(found, expected, strict=True):
        assert all(text in one.text for text in texts)
        shown = [decode_image(picture, SIDE) for picture in pictures]
        assert torch.equal(torch.tensor(one.pixels), torch.stack(shown).flatten(1))


def write_tar(members: list[tuple[str, bytes]], format: int, **header: Any) -> bytes:
    """By Python's tarfile, with whatever else a header can say."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in header.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def documents(*names: str) -> list[tuple[str, bytes]]:
    return [(f"{name}.json", encode(foreign(make_document(n)))) for n, name in enumerate(names)]


def pairs(*names: str, order: tuple[str, ...] = ("jpg", "txt", "json")) -> list[tuple[str, bytes]]:
    members = []
    for number, name in enumerate(names):
        parts = {
            "jpg": make_image(number),
            "png": make_image(number, kind="png"),
            "webp": make_image(number, kind="webp", lossless=True),
            "txt": f"Caption {number}, é.".encode(),
            "json": encode({"url": f"https://example.org/{number}"}),
        }
        members += [(f"{name}.{kind}", parts[kind.lower()]) for kind in order]
    return members


OWNED: dict[str, Any] = {"mtime": 1_700_000_000, "uid": 1000, "gid": 100, "uname": "someone"}
WITH_FRACTIONS = OWNED | {"mtime": 1_700_000_000.25}
#: By tarfile, in every form of its own: name -> tar.
WRITTEN: dict[str, bytes] = {
    "documents, plain": write_tar(documents("a", "b", "c"), tarfile.USTAR_FORMAT),
    "documents, owned": write_tar(documents("a", "b", "c"), tarfile.USTAR_FORMAT, **OWNED),
    "documents, pax": write_tar(documents("a", "é", LONG), tarfile.PAX_FORMAT, **WITH_FRACTIONS),
    "documents, pax, long first": write_tar(documents(LONG, "b"), tarfile.PAX_FORMAT),
    "documents, gnu": write_tar(documents(LONG, "é", "./c"), tarfile.GNU_FORMAT, **OWNED),
    "documents, upper case": write_tar(
        [(name.upper(), data) for name, data in documents("a", "b")], tarfile.PAX_FORMAT
    ),
    "documents, numbers like ours": write_tar(
        documents("000000000000", "000000000001"), tarfile.PAX_FORMAT, **WITH_FRACTIONS
    ),
    "documents, the first like ours": write_tar(documents("a", "b" * 120), tarfile.GNU_FORMAT),
    "documents, more beside": write_tar(
        [*documents("a"), ("a.cls", b"1"), *documents("z", "b")[1:]], tarfile.PAX_FORMAT
    ),
    "pairs, plain": write_tar(pairs("a", "b", "c"), tarfile.USTAR_FORMAT),
    "pairs, json first": write_tar(
        pairs("a", "b", order=("json", "txt", "jpg")), tarfile.USTAR_FORMAT, **OWNED
    ),
    "pairs, json before png": write_tar(
        pairs("a", "b", order=("json", "png", "txt")), tarfile.PAX_FORMAT, **WITH_FRACTIONS
    ),
    "pairs, text first": write_tar(
        pairs(LONG, "é", order=("txt", "webp")), tarfile.PAX_FORMAT, **WITH_FRACTIONS
    ),
    "pairs, gnu": write_tar(pairs("./a", LONG, order=("txt", "JPG")), tarfile.GNU_FORMAT),
}
CASES = [*WRITTEN, *FIXTURES]
#: One of each kind of name, order and dialect.
QUICK = [
    "documents, pax",
    "documents, the first like ours",
    "pairs, json first",
    "pairs, text first",
    "gnutar-posix-documents",
    "bsdtar-default-pairs",
    "shardwriter-documents",
    "tarwriter-pairs",
]


def tar_of(case: str) -> bytes:
    if case in WRITTEN:
        return WRITTEN[case]
    return gzip.decompress((ASSETS / f"{case}.tar.gz").read_bytes())


def put(folder: Path, tar: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "000000000.tar").write_bytes(tar)
    return folder


def indexed(folder: Path) -> None:
    result = index(Index(shards=(str(folder),), workers=0))
    assert (result.exit_code, result.failures) == (0, [])


def repaired(folder: Path, output: Path) -> dict[str, str]:
    """Repair; returns what each key is called now."""
    options = Repair(shards=(str(folder),), output=str(output), workers=0)
    assert repair(options, quiet=True).exit_code == 0
    table = pq.read_table(output / "000000000.samples.parquet").to_pydict()
    keys = {}
    for key, member in zip(table["key"], table["source_member"], strict=True):
        above, slash, base = member.rpartition("/")
        keys[above + slash + base.partition(".")[0]] = key
    return keys


class TestAsItCame:
    @pytest.mark.parametrize("case", QUICK)
    def test_before_and_after_index(
        self, tmp_path: Path, tokenizer: MediaTokenizer, case: str
    ) -> None:
        before_and_after_index(tmp_path, tokenizer, case)

    @pytest.mark.matrix
    @pytest.mark.parametrize("case", [case for case in CASES if case not in QUICK])
    def test_of_every_tool(self, tmp_path: Path, tokenizer: MediaTokenizer, case: str) -> None:
        before_and_after_index(tmp_path, tokenizer, case)


def before_and_after_index(tmp_path: Path, tokenizer: MediaTokenizer, case: str) -> None:
    tar = tar_of(case)
    folder = put(tmp_path / "in", tar)
    check(stream(folder, tokenizer), tar)
    indexed(folder)
    check(stream(folder, tokenizer), tar)
    assert validate(Validate(shards=(str(folder),), workers=0)).errors == 0
    assert (folder / "000000000.tar").read_bytes() == tar


class TestRepaired:
    @pytest.mark.parametrize("case", QUICK[:4])
    def test_with_and_without_index(
        self, tmp_path: Path, tokenizer: MediaTokenizer, case: str
    ) -> None:
        repair_with_and_without_index(tmp_path, tokenizer, case)

    @pytest.mark.matrix
    @pytest.mark.parametrize("case", [case for case in CASES if case not in QUICK[:4]])
    def test_of_every_tool(self, tmp_path: Path, tokenizer: MediaTokenizer, case: str) -> None:
        repair_with_and_without_index(tmp_path, tokenizer, case)


def repair_with_and_without_index(tmp_path: Path, tokenizer: MediaTokenizer, case: str) -> None:
    tar = tar_of(case)
    folder = put(tmp_path / "in", tar)
    keys = repaired(folder, tmp_path / "plain")
    check(stream(tmp_path / "plain", tokenizer), tar, keys)
    indexed(folder)
    assert repaired(folder, tmp_path / "indexed") == keys
    check(stream(tmp_path / "indexed", tokenizer), tar, keys)
    assert validate(Validate(shards=(str(tmp_path / "indexed"),), workers=0)).findings == []


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("open_clip")
    return make_clip(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.matrix
@pytest.mark.parametrize("case", [case for case in CASES if "documents" in case])
def test_aligned(tmp_path: Path, tokenizer: MediaTokenizer, clip: str, case: str) -> None:
    """Of documents of one picture each no alignment changes which belongs to what."""
    tar = tar_of(case)
    folder = put(tmp_path / "in", tar)
    keys = repaired(folder, tmp_path / "mended")
    align(
        Align(
            shards=(str(tmp_path / "mended"),),
            output=str(tmp_path / "out"),
            clip_model=clip,
            workers=0,
        ),
        quiet=True,
    )
    found = stream(tmp_path / "out", tokenizer)
    assert [one.key for one in found] == list(keys.values())
    for one, (_, texts, pictures) in zip(found, expected_of(tar), strict=True):
        assert all(text in one.text for text in texts)
        shown = [decode_image(picture, SIDE).flatten().tolist() for picture in pictures]
        assert sorted(one.pixels) == sorted(shown)


class TestWhatIsNotTheSample:
    """A samples table vouches for the data: what does not fit it is damaged, and nothing else."""

    @pytest.fixture
    def pool(self, tmp_path: Path) -> Iterator[ShardPool]:
        folder = put(tmp_path, write_tar(documents("a", "b"), tarfile.PAX_FORMAT, **WITH_FRACTIONS))
        indexed(folder)
        with ShardPool(catalogue_stream("s", [str(folder)]).shards, most_indexes=1) as pool:
            yield pool

    def change(self, tmp_path: Path, row: int, distance: int) -> None:
        """Another byte, so far from the beginning of a row's data."""
        path = tmp_path / "000000000.tar"
        place = pq.read_table(tmp_path / "000000000.samples.parquet").to_pydict()["offset"][row]
        data = bytearray(path.read_bytes())
        data[place + distance] ^= 1
        path.write_bytes(data)

    def test_a_changed_byte_of_the_data(self, tmp_path: Path, pool: ShardPool) -> None:
        self.change(tmp_path, 1, 30)
        assert pool.read(0, 0).key == "a"
        with pytest.raises(UnusableError, match="damaged"):
            pool.read(0, 1)

    def test_a_header_that_is_none(self, tmp_path: Path, pool: ShardPool) -> None:
        """Other readers end there."""
        self.change(tmp_path, 1, -100)
        with pytest.raises(UnusableError, match="damaged"):
            pool.read(0, 1)
