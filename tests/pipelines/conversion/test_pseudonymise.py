"""--pseudonymise: nothing that is written tells an id, a file name or a path of the source."""

import json
import re
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmdata.errors import UserError
from pipelines.conversion.secret_key import KEY_VARIABLE
from pipelines.custom.run import convert_custom
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.corpus import (
    documents_of,
    environment,
    image_bytes,
    leftovers,
    manifest_of,
    pack,
    rejects_of,
    run_cli,
    snapshot,
)
from tests.custom_factory import Conversations, make_conversations, one_array, record

KEY = "a secret of the clinic 4711"
#: What the names of the fixtures have in common.
TELLING = re.compile(rb"scan-?\d{4}|ward_07|clinic|patient-\d|" + KEY.encode())


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    return str(path)


@pytest.fixture
def source(tmp_path: Path) -> Conversations:
    """Records that name themselves in their text, in a zip and in plain files; some are broken."""
    (tmp_path / "clinic").mkdir()
    made = make_conversations(tmp_path / "clinic")
    exif = Image.Exif()
    exif[0x010E] = "patient-8"
    told = tmp_path / "clinic" / "images" / "ward_07" / "scan0050_0.jpg"
    Image.new("RGB", (40, 30), "gray").save(told, exif=exif, comment=b"patient-8")
    rows: list[Any] = [
        record(49, ["ward_07/scan0050_0.jpg"]),
        record(50, ["ward_07/scan0000_0.jpg"], "<image>\nIs scan-0050 scan0000_0.jpg?", "Yes."),
        record(51, ["ward_07/scan9999_0.jpg"]),
        record(52, ["../ward_07/scan0000_0.jpg"]),
        {"id": "scan-0053", "scan-0053": 1, "conversations": {"patient-9": 1}},
        {"id": "scan-0054", "id2": "x"},
        "patient-9",
    ]
    data = json.dumps(rows).encode()
    packed = pack(tmp_path / "clinic" / "clinic_more.json.zip", data, "patient-7.json")
    return Conversations((*made.inputs, str(packed)), made.root)


def hidden(source: Conversations, output: Path, key: str, **more: Any) -> None:
    given = {"pseudonymise": True, "pseudonym_key": key} | more
    convert_custom(source.options(output, **given), quiet=True)


def pictures(path: Path) -> bytes:
    """The files of the images inside a shard."""
    with tarfile.open(path) as archive:
        found = [json.loads(archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]
    return b"".join(image_bytes(image) for one in found for image in one["image_info"])


def telling(folder: Path) -> dict[str, set[bytes]]:
    """What files tell that they should not; parquet is looked into."""
    found = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data += json.dumps(pq.read_table(path).to_pylist()).encode()
        if path.suffix == ".tar":
            data += pictures(path)
        if told := set(TELLING.findall(data)):
            found[path.name] = told
    return found


def test_the_fixture_would_be_found_out(source: Conversations, tmp_path: Path) -> None:
    convert_custom(source.options(tmp_path / "out", log_json=str(tmp_path / "log")), quiet=True)
    told = telling(tmp_path / "out")
    assert {"000000000.tar", "000000000.samples.parquet", "plan.json", "manifest.json"} <= set(told)
    assert any(name.endswith(".rejects.jsonl") for name in told)


RAY = (pytest.mark.slow, pytest.mark.matrix, pytest.mark.ray)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=RAY)])
def test_nothing_that_is_written_or_printed_tells(
    workers: int, source: Conversations, key: str, tmp_path: Path
) -> None:
    output, log = tmp_path / "out", tmp_path / "logs" / "log.jsonl"
    log.parent.mkdir()
    done = run_cli(
        source.command(
            output, "--pseudonymise", "--pseudonym-key", key, "--log-json", str(log), "--workers",
            str(workers), "--docs-per-shard", "5", "--split", "train=0.7,val=0.3", "--split-by",
            "patient",
        )
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = (done.stdout + done.stderr).replace(str(tmp_path), "")
    assert TELLING.findall(printed.encode()) == []
    assert telling(output) == telling(log.parent) == {}
    reasons = {r["reason"] for part in ("train", "val") for r in rejects_of(output / part)}
    assert {"missing", "unsafe-path", "unknown-format", "names-in-text"} <= reasons
    for part in ("train", "val"):
        assert validate(Validate(shards=(str(output / part),), workers=0)).findings == []
        assert leftovers(output / part) == []


def test_a_record_that_fails_tells_only_its_number(
    source: Conversations, key: str, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    for more in (("--on-missing", "error"), ("--on-tag-mismatch", "error")):
        done = run_cli(
            source.command(
                tmp_path / more[0], "--pseudonymise", "--pseudonym-key", key, "--workers", "0",
                "--log-json", str(log), *more,
            )
        )  # fmt: skip
        printed = (done.stdout + done.stderr).replace(str(tmp_path), "")
        assert TELLING.findall(printed.encode()) == []
        if more[0] == "--on-missing":
            assert done.returncode == 1
            assert re.search(r"failed: [0-9a-f]{32}: [0-9a-f]{32}: record \d+: image 0", printed)
    assert TELLING.findall(log.read_bytes().replace(str(tmp_path).encode(), b"")) == []


def test_the_same_key_gives_the_same_names_and_bytes(
    source: Conversations, key: str, tmp_path: Path
) -> None:
    hidden(source, tmp_path / "a", key)
    hidden(source, tmp_path / "b", key)
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    (tmp_path / "other").write_text("another secret of ours")
    hidden(source, tmp_path / "c", str(tmp_path / "other"))
    ids = [
        [one["id"] for one in documents_of(tmp_path / name).values()] for name in ("a", "b", "c")
    ]
    assert ids[0] == ids[1]
    assert not set(ids[0]) & set(ids[2])
    with pytest.raises(UserError, match="option pseudonym_check: was"):
        hidden(source, tmp_path / "a", str(tmp_path / "other"))


def test_names_alone_change(source: Conversations, key: str, tmp_path: Path) -> None:
    """The same documents with the same images, in the same splits."""
    more = {"split": "train=0.5,val=0.5", "split_by": "patient"}
    convert_custom(source.options(tmp_path / "open", **more), quiet=True)
    hidden(source, tmp_path / "hidden", key, **more)
    for part in ("train", "val"):
        told = documents_of(tmp_path / "open" / part)
        untold = documents_of(tmp_path / "hidden" / part)
        assert told.keys() == untold.keys()
        for name in told:
            for field in ("similarity_matrix", "alignment", "roles"):
                assert told[name][field] == untold[name][field]
            assert [i["width"] for i in told[name]["image_info"]] == [
                i["width"] for i in untold[name]["image_info"]
            ]
        patients = {(told[n].get("patient"), untold[n].get("patient")) for n in told}
        assert len(patients) == len({was for was, _ in patients})


def test_a_resume_goes_on_and_leaves_nothing_telling(
    source: Conversations, key: str, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    hidden(source, output, key, docs_per_shard=5, limit=5)
    assert telling(output) == {}
    hidden(source, output, key, docs_per_shard=5)
    hidden(source, tmp_path / "reference", key, docs_per_shard=5)
    assert snapshot(output) == snapshot(tmp_path / "reference")
    plan = json.loads((output / "plan.json").read_text())
    assert plan["hidden"]
    assert all(re.fullmatch("[0-9a-f]{32}", entry["path"]) for entry in plan["inputs"])
    assert "pseudonym_key" not in manifest_of(output)["options"]


def test_the_key_may_come_from_the_environment(source: Conversations, tmp_path: Path) -> None:
    command = source.command(tmp_path / "out", "--pseudonymise", "--workers", "0")
    run = [sys.executable, *command[1:]]
    import subprocess

    done = subprocess.run(
        run, env=environment() | {KEY_VARIABLE: KEY}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert telling(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("text", "problem"), [(None, "needs a secret key"), ("short", "expected at least 16 bytes")]
)
def test_without_a_key_that_is_one_nothing_starts(
    text: str | None, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    source = one_array(tmp_path, record(0, ["ok0.jpg"]))
    given: dict[str, Any] = {"pseudonymise": True}
    if text is not None:
        (tmp_path / "key").write_text(text)
        given["pseudonym_key"] = str(tmp_path / "key")
    with pytest.raises(UserError, match=problem) as caught:
        convert_custom(source.options(tmp_path / "out", **given), quiet=True)
    assert "short" not in str(caught.value)
