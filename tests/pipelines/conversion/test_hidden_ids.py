"""--pseudonymise: no id of texts, names and nested fields is in what is written or printed."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mmdata.cli.main import main
from mmdata.errors import UserError
from mmdata.sources.pseudonyms import Pseudonyms
from pipelines.custom.options import ConvertCustom
from pipelines.custom.run import convert_custom
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.corpus import documents_of, pack, picture, rejects_of
from tests.custom_factory import Conversations, one_array, record, turns

KEY = "a secret of the clinic 4711"
TELLING = re.compile(rb"\d{3}[\W_]{0,3}S[\W_]{0,3}4\d{3}|rec-?4\d{3}|Doe.{0,3}Jane|77\d{6}", re.I)


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "key").write_text(KEY)
    return str(tmp_path / "key")


def spelt(patient: str) -> str:
    """An id in the spellings that occur."""
    plain = patient.replace("_", "")
    return f"{patient}, {patient.replace('_', '-')}, {plain}, {plain.lower()}, sub_{patient}_T1"


def clinic(folder: Path, records: int) -> Conversations:
    """Records of patients whose ids stand in texts, roles, names of files and nested fields."""
    root = folder / "images"
    rows = []
    for number in range(records):
        patient = f"{number // 3:03d}_S_{4000 + number // 3}"
        name = f"{patient}/{patient}_scan{number}.jpg"
        (root / patient).mkdir(parents=True, exist_ok=True)
        if number % 10:
            (root / name).write_bytes(picture(number % 40))
        said = turns(
            f"<image>\nMRI of patient {spelt(patient)}?", f"rec-{4000 + number} Doe, Jane."
        )
        said[1]["from"] = f"reader of {patient}"
        more = {
            "patient": patient,
            "mrn": 77_000_000 + number,
            "who": {"name": "Doe^Jane", "site": "north"},
            "meta": {"note": f"see {spelt(patient)}; {77_000_000 + number}", patient: patient,
                     "subject_id": 77_000_000 + number},
        }  # fmt: skip
        row = record(number, [name], **more) | {"id": f"rec-{4000 + number}", "conversations": said}
        rows.append(row if number % 11 else row | {"conversations": 7})
    pack(folder / "001_S_4001.json.gz", json.dumps(rows).encode())
    return Conversations((str(folder / "001_S_4001.json.gz"),), str(root))


def told_in(folder: Path) -> dict[str, set[bytes]]:
    """What files tell that they should not; parquet is looked into."""
    found = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data = json.dumps(pq.read_table(path).to_pylist()).encode()
        # Base64, hexadecimal and times of files in nanoseconds hold any digits.
        data = re.sub(rb'"image_base64":"[^"]*"', b"", data)
        data = re.sub(rb"\b(?:[0-9a-f]{32,}|[0-9]{18,20})\b", b"", data)
        if told := set(TELLING.findall(data)):
            found[path.name] = told
    return found


@pytest.mark.parametrize("records", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_ids_are_in_nothing_that_is_written_or_printed(
    records: int, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = clinic(tmp_path / "in", records)
    (tmp_path / "logs").mkdir()
    output, log = tmp_path / "out", tmp_path / "logs" / "log"
    arguments = [
        "convert-custom", *source.inputs, "--image-root", source.root, "--output", str(output),
        "--workers", "0", "--split", "train=0.7,val=0.3", "--split-by", "patient",
        "--pseudonymise", "--pseudonym-key", key, "--pseudonym-field", "who.name",
        "--keep-field", "meta", "--log-json", str(log), "--docs-per-shard", "50",
    ]  # fmt: skip
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert not TELLING.findall((printed.out + printed.err).encode())
    assert told_in(output) == told_in(log.parent) == {}
    assert "what stays: in 0 documents an id of their own" in printed.out
    names = Pseudonyms(KEY.encode())
    for part in ("train", "val"):
        assert validate(Validate(shards=(str(output / part),), workers=0)).errors == 0
        for one in documents_of(output / part).values():
            asked, answered = one["text_list"]
            assert asked.count(one["patient"]) == 5  # each spelling gives the same pseudonym
            assert answered == f"{one['id']} {names.of('Doe^Jane')}."
            assert one["who"] == {"name": names.of("Doe^Jane")}
            assert one["meta"]["note"].count(one["patient"]) == 5
            assert one["roles"][1] == f"reader of {one['patient']}"
        reasons = {reject["reason"] for reject in rejects_of(output / part)}
        assert {"names-in-text", "missing"} <= reasons


def test_the_fixture_would_be_found_out(tmp_path: Path) -> None:
    source = clinic(tmp_path / "in", 30)
    convert_custom(source.options(tmp_path / "out", split_by="patient"), quiet=True)
    found = told_in(tmp_path / "out")
    assert {"000000000.tar", "000000000.samples.parquet", "plan.json", "manifest.json"} <= set(
        found
    )


def test_what_stays_is_counted_and_said(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        record(0, ["ok0.jpg"], "<image>\nWhere?", "On the left.") | {"id": "left"},
        record(1, ["ok1.jpg"], "<image>\nHow many?", "There are 3.") | {"id": 3},
        record(2, ["ok2.jpg"], "<image>\nWho?", "Jane Doe, says Dr. Miller."),
        record(3, ["ok3.jpg"], "<image>\nWhat?", "A brain."),
    ]
    source = one_array(tmp_path, *rows)
    more = {"pseudonymise": True, "pseudonym_key": key}
    result = convert_custom(source.options(tmp_path / "out", **more), quiet=True)
    assert result.tally.notes["id-left-in-text"] == 2
    assert result.tally.notes["maybe-a-person"] == 1
    texts = [one["text_list"][1] for one in documents_of(tmp_path / "out").values()]
    assert texts == ["On the left.", "There are 3.", "Jane Doe, says Dr. Miller.", "A brain."]
    from pipelines.conversion.print import print_conversion

    print_conversion(result)
    printed = " ".join(capsys.readouterr().out.split())
    assert "in 2 documents an id of their own is left in the text" in printed
    assert "in 1 document a person's name may stand (a plain guess" in printed


def test_nested_fields_are_kept_and_hashed_alone(key: str, tmp_path: Path) -> None:
    meta = {"language": "en", "subject": "S_4001", "doctor": "Dr. Doe"}
    source = one_array(tmp_path, record(0, ["ok0.jpg"], meta=meta, other={"a": 1}))
    more = {"pseudonymise": True, "pseudonym_key": key, "split_by": "meta.subject"}
    given = source.options(tmp_path / "out", keep_field=("meta.language",), **more)
    convert_custom(given, quiet=True)
    (one,) = documents_of(tmp_path / "out").values()
    hashed = Pseudonyms(KEY.encode()).of("S_4001")
    assert one["meta"] == {"language": "en", "subject": hashed}
    assert "other" not in one
    table = pq.read_table(tmp_path / "out" / "000000000.samples.parquet")
    assert table["group"].to_pylist() == [hashed]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"pseudonym_field": ("a",)}, "go with --pseudonymise"),
        ({"pseudonymise": True, "pseudonym_field": ("a.",)}, "expected a field"),
        ({"pseudonymise": True, "pseudonym_field": ("a",), "keep_field": ("a",)}, "choose one"),
    ],
)
def test_options_that_make_no_sense(more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ConvertCustom(inputs=("a",), output="b", **more)


def test_a_field_that_no_record_has_is_refused(key: str, tmp_path: Path) -> None:
    source = one_array(tmp_path, record(0, ["ok0.jpg"], patient_name="Doe"))
    more = {"pseudonymise": True, "pseudonym_key": key, "pseudonym_field": ("patient_nmae",)}
    with pytest.raises(UserError, match=r"--pseudonym-field patient_nmae: .*mean patient_name"):
        convert_custom(source.options(tmp_path / "out", **more), quiet=True)
    assert not (tmp_path / "out").exists()
