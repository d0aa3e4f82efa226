"""Names that are not quite those of the pictures, through whole runs: found, or said why not."""

import base64
import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from mmdata.errors import BadInputError
from pipelines.custom.run import convert_custom
from pipelines.mmc4.options import ConvertMmc4
from pipelines.mmc4.run import convert_mmc4
from tests.corpus import document, documents_of, lines, picture, rejects_of, run_cli, snapshot
from tests.custom_factory import Conversations, one_array, record

FILES = {
    "coco/1.jpg": picture(1),
    "coco/2.JPG": picture(2),
    "ocr/3.png": picture(3, kind="PNG"),
    "vg/VG_100K/4.jpg": picture(4),
    "vg/VG_100K_2/5.jpg": picture(5),
    "x/6.jpg": picture(6),
    "y/6.jpg": picture(7),
}
#: (name in a record, file that it means, how it is found).
NAMES = [
    ("coco/1.jpg", "coco/1.jpg", None),
    ("./coco/1.jpg", "coco/1.jpg", "found-by-dot-parts"),
    ("coco\\1.jpg", "coco/1.jpg", "found-by-backslash"),
    ("coco%2f1.jpg", "coco/1.jpg", "found-by-percent-encoding"),
    ("coco/2.jpg", "coco/2.JPG", "found-by-extension-case"),
    ("ocr/3.jpg", "ocr/3.png", "found-by-other-extension"),
    ("VG_100K/4.jpg", "vg/VG_100K/4.jpg", "found-by-suffix"),
]
LOST = [
    ("VG_100K_2/4.jpg", "missing"),
    ("vg/VG_100K/5.jpg", "missing"),
    ("6.jpg", "ambiguous-name"),
    ("..\\coco\\1.jpg", "unsafe-path"),
]


@pytest.fixture
def source(tmp_path: Path) -> Conversations:
    made = one_array(tmp_path, *(record(k, [name]) for k, (name, *_) in enumerate([*NAMES, *LOST])))
    for name, data in FILES.items():
        path = Path(made.root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return made


def packed(source: Conversations, to: Path) -> Conversations:
    """The same with the pictures in a tar made with `tar -C images .`."""
    with tarfile.open(to, "w") as archive:
        for name in FILES:
            archive.add(Path(source.root) / name, f"./{name}")
    return Conversations(source.inputs, str(to))


@pytest.mark.parametrize("where", ["folder", "tar", "both"])
def test_what_is_found_otherwise_is_counted_and_told(
    where: str, source: Conversations, tmp_path: Path
) -> None:
    if where == "tar":
        source = packed(source, tmp_path / "images.tar")
    elif where == "both":  # some of them only in an archive that lies in the folder
        packed(source, Path(source.root) / "left-over.tar")
        for name in ("coco/2.JPG", "vg/VG_100K/4.jpg", "y/6.jpg"):
            (Path(source.root) / name).unlink()
    tally = convert_custom(source.options(tmp_path / "out"), quiet=True).tally
    assert tally.notes == {note: 1 for _, _, note in NAMES if note} | {"wrong-extension": 1}
    assert tally.images_dropped == {"missing": 2, "ambiguous-name": 1, "unsafe-path": 1}
    found = [
        (info["image_name"], info["sha256"])
        for sample in documents_of(tmp_path / "out").values()
        for info in sample["image_info"]
    ]
    assert found == [(n, hashlib.sha256(FILES[file]).hexdigest()) for n, file, _ in NAMES]
    rejects = rejects_of(tmp_path / "out")
    told = {line["reason"]: line["detail"] for line in rejects if line["action"] == "kept"}
    assert told.pop("wrong-extension") == "ocr/3.jpg"
    assert told == {note: f"{name} is {file}" for name, file, note in NAMES if note}
    lost = [line for line in rejects if line["action"] == "dropped-image"]
    assert [line["reason"] for line in lost] == [reason for _, reason in LOST]
    assert lost[2]["detail"] == "6.jpg: may be x/6.jpg or y/6.jpg"
    assert 'its part ".."' in lost[3]["detail"]


def test_a_later_run_sees_the_folder_as_it_is_then(source: Conversations, tmp_path: Path) -> None:
    first = convert_custom(source.options(tmp_path / "a"), quiet=True).tally
    (Path(source.root) / "y" / "6.jpg").unlink()
    (Path(source.root) / "z" / "ocr").mkdir(parents=True)
    (Path(source.root) / "z" / "ocr" / "3.jpg").write_bytes(picture(9))
    second = convert_custom(source.options(tmp_path / "b"), quiet=True).tally
    assert first.images_dropped["ambiguous-name"] == second.images_dropped["ambiguous-name"] == 1
    assert "6.jpg: may be" not in (tmp_path / "b" / "000000000.rejects.jsonl").read_text()
    refreshed = source.options(tmp_path / "a", refresh_missing=True)
    assert convert_custom(refreshed, quiet=True).complete
    assert documents_of(tmp_path / "a") == documents_of(tmp_path / "b")


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.ray
def test_how_a_run_is_shared_out_makes_no_difference(source: Conversations, tmp_path: Path) -> None:
    more = ("--docs-per-shard", "2")
    outputs = []
    for workers in ("0", "2"):
        outputs.append(tmp_path / workers)
        done = run_cli(source.command(outputs[-1], *more, "--workers", workers))
        assert done.returncode == 0, done.stderr
    assert snapshot(outputs[0]) == snapshot(outputs[1])


def test_a_damaged_archive_beside_folders_is_named_and_may_be_left_out(
    source: Conversations, tmp_path: Path
) -> None:
    (Path(source.root) / "left-over.tar").write_bytes(b"not a tar" * 100)
    with pytest.raises(BadInputError, match=r"left-over\.tar: damaged tar"):
        convert_custom(source.options(tmp_path / "out"), quiet=True)
    assert not (tmp_path / "out").exists()
    options = source.options(tmp_path / "out", skip_bad_inputs=True)
    assert convert_custom(options, quiet=True).tally.images == len(NAMES)


def test_no_payload_gets_into_a_reject(tmp_path: Path) -> None:
    sound = base64.b64encode(picture(1, size=(200, 200))).decode()
    broken = sound[:5000] + "!" + sound[5001:]
    rows = [record(0, [sound]), record(1, [broken]), record(2, ["ok0.jpg", "x" * 9000])]
    rows.append({"messages": [{"role": "user", "content": [
        {"type": "image", "source": {"kind": "other", "body": sound}},
        {"type": "text", "text": "What?"}]}]})  # fmt: skip
    source = one_array(tmp_path, *rows)
    tally = convert_custom(source.options(tmp_path / "out"), quiet=True).tally
    assert (tally.images, sum(tally.images_dropped.values())) == (2, 3)
    assert documents_of(tmp_path / "out")["000000000000"]["image_info"][0]["image_name"] == (
        "embedded-0.jpg"
    )
    details = [line["detail"] for line in rejects_of(tmp_path / "out")]
    assert max(map(len, details)) < 250
    assert any("got the keys kind, body" in detail for detail in details)


def test_pseudonyms_hide_what_a_picture_was_found_as(
    source: Conversations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMDATA_PSEUDONYM_KEY", "0123456789abcdef")
    options = source.options(tmp_path / "out", pseudonymise=True)
    tally = convert_custom(options, quiet=True).tally
    assert tally.notes["found-by-suffix"] == 1
    text = (tmp_path / "out" / "000000000.rejects.jsonl").read_text()
    assert "VG_100K" not in text
    assert "coco" not in text


def test_a_shard_of_mmc4_takes_no_picture_of_another(tmp_path: Path) -> None:
    """Its own folder comes first, then the flat one, in folders and in archives."""
    members = {"0/a.jpg": picture(0), "7/a.jpg": picture(7), "0/b.jpg": picture(1)}
    members |= {"7/c.png": picture(2, kind="PNG"), "d.jpg": picture(3)}
    for name, data in members.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(tmp_path / "images", "./images")
    docs = tmp_path / "docs_shard_7_v2.jsonl"
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    docs.write_bytes(lines([document(0, images=names, sentences=5)]))
    for images in ("images", "images.tar"):
        output = tmp_path / f"out-{images}"
        options = ConvertMmc4(
            docs=(str(docs),), images=str(tmp_path / images), output=str(output), workers=0
        )
        tally = convert_mmc4(options, quiet=True).tally
        assert tally.images_dropped == {"missing": 1}
        (sample,) = documents_of(output).values()
        found = {info["image_name"]: info["sha256"] for info in sample["image_info"]}
        wanted = {"a.jpg": "7/a.jpg", "c.jpg": "7/c.png", "d.jpg": "d.jpg"}
        assert found == {
            name: hashlib.sha256(members[file]).hexdigest() for name, file in wanted.items()
        }


def test_nothing_that_is_found_is_still_refused_with_the_places(tmp_path: Path) -> None:
    source = one_array(tmp_path, record(0, ["gone/9.jpg"]))
    with pytest.raises(BadInputError, match="none of its 1 images was found in"):
        convert_custom(source.options(tmp_path / "out"), quiet=True)
    assert json.loads(Path(source.inputs[0]).read_text())
