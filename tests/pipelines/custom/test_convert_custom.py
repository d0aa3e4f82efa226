"""convert-custom as a whole: equal bytes however it runs, resume, alignment, policies, windows."""

import base64
import io
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmdata.errors import BadInputError, UserError
from mmdata.sources import containers
from mmdata.storage.urls import filesystem
from pipelines.align.options import Align
from pipelines.conversion.result import ConversionResult
from pipelines.conversion.status import status
from pipelines.conversion.status_options import Status
from pipelines.custom.run import convert_custom
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.clip_factory import make_clip
from tests.corpus import (
    ROOT,
    check_nothing_half_written,
    documents_of,
    environment,
    image_bytes,
    lines,
    manifest_of,
    pack,
    picture,
    rejects_of,
    run_cli,
    snapshot,
)
from tests.custom_factory import Conversations, make_conversations, one_array, record, turns
from tests.object_store import ObjectStore


def convert(source: Conversations, output: Path, **more: Any) -> ConversionResult:
    """Convert, and see that the validator finds nothing."""
    result = convert_custom(source.options(output, **more), quiet=True)
    report = validate(Validate(shards=(str(output),), workers=0))
    assert [finding.code for finding in report.findings] == []
    return result


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("open_clip")
    return make_clip(tmp_path_factory.mktemp("models") / "tiny")


def only_document(output: Path) -> dict[str, Any]:
    (found,) = documents_of(output).values()
    return found


# --- equal bytes, however it is run


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.ray
def test_workers_make_no_difference(tmp_path: Path) -> None:
    source = make_conversations(tmp_path)
    convert(source, tmp_path / "w0", docs_per_shard=3)
    reference = snapshot(tmp_path / "w0")
    assert len([name for name in reference if name.endswith(".tar")]) == 8
    done = run_cli(source.command(tmp_path / "w2", "--docs-per-shard", "3", "--workers", "2"))
    assert done.returncode == 0, done.stderr
    assert snapshot(tmp_path / "w2") == reference


def test_ranges_of_one_array_are_units_and_change_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_conversations(tmp_path, files=1)
    convert(source, tmp_path / "whole")
    monkeypatch.setattr(containers, "RANGE_BYTES", 2000)
    result = convert(source, tmp_path / "ranges")
    assert len(result.plan.units) > 2
    assert documents_of(tmp_path / "ranges") == documents_of(tmp_path / "whole")


@pytest.mark.parametrize("name", ["data.jsonl", "data.json.gz", "data.json.zst", "data.json.zip"])
def test_containers_change_no_document(name: str, tmp_path: Path) -> None:
    rows = [record(number, ["ok0.jpg"]) for number in range(5)]
    array = one_array(tmp_path, *rows)
    data = lines(rows) if name.endswith(".jsonl") else json.dumps(rows).encode()
    other = Conversations((str(pack(tmp_path / name, data)),), array.root)
    convert(array, tmp_path / "array")
    convert(other, tmp_path / "other")
    assert documents_of(tmp_path / "other") == documents_of(tmp_path / "array")


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    source = make_conversations(tmp_path, records=60)
    convert(source, tmp_path / "reference", docs_per_shard=1)
    output = tmp_path / "out"
    more = ("--docs-per-shard", "1", "--workers", "0")
    process = subprocess.Popen(
        source.command(output, *more), env=environment(), stdout=subprocess.DEVNULL
    )
    while not list(output.glob("00000000[5-9].json")):
        assert process.poll() is None, "it ended before it was killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    check_nothing_half_written(output)
    assert not (output / "manifest.json").exists()
    assert run_cli(source.command(output, *more)).returncode == 0
    assert snapshot(output) == snapshot(tmp_path / "reference")


def test_other_options_are_refused_over_the_same_output(tmp_path: Path) -> None:
    source = one_array(tmp_path, record(0, ["ok0.jpg"]))
    convert(source, tmp_path / "out")
    for more in ({"roles": "drop"}, {"on_tag_mismatch": "drop"}, {"window": "full"},
                 {"format": "llava"}, {"placeholder": ("<pic>",)}):  # fmt: skip
        with pytest.raises(UserError, match=f"option {next(iter(more))}: was"):
            convert_custom(source.options(tmp_path / "out", **more), quiet=True)


def test_limit_and_dry_run(tmp_path: Path) -> None:
    source = make_conversations(tmp_path)
    assert run_cli(source.command(tmp_path / "dry", "--dry-run")).returncode == 0
    assert not (tmp_path / "dry").exists()
    result = convert_custom(source.options(tmp_path / "out", limit=4, docs_per_shard=4), quiet=True)
    assert (result.shards_written, result.complete) == (1, False)
    convert(source, tmp_path / "out", docs_per_shard=4)


# --- what is in a document


def test_several_images_at_one_turn_stay_there_in_their_order(tmp_path: Path) -> None:
    names = [f"ok{number}.jpg" for number in (2, 0, 1)]
    source = one_array(tmp_path, record(0, names, "Hello.", "<image><image><image>Three.", "Yes."))
    convert(source, tmp_path / "out")
    found = only_document(tmp_path / "out")
    assert [info["image_name"] for info in found["image_info"]] == names
    assert [info["matched_text_index"] for info in found["image_info"]] == [1, 1, 1]
    assert found["similarity_matrix"] == [[0.0, 1.0, 0.0]] * 3
    assert (found["alignment"], found["similarity_source"]) == ("given", "placeholder")
    originals = [picture(number) for number in (2, 0, 1)]
    assert [image_bytes(info) for info in found["image_info"]] == originals


def test_a_drop_moves_no_other_image(tmp_path: Path) -> None:
    names = ["ok0.jpg", "gone.jpg", "ok1.jpg", "ok2.jpg"]
    said = ("<image><image>\nA?", "Yes.", "<image>B?", "<image> is it.")
    source = one_array(tmp_path, record(0, names, *said))
    convert(source, tmp_path / "out")
    found = only_document(tmp_path / "out")
    matched = {info["image_name"]: info["matched_text_index"] for info in found["image_info"]}
    assert matched == {"ok0.jpg": 0, "ok1.jpg": 2, "ok2.jpg": 3}


def test_clip_fills_the_matrix_and_moves_nothing(clip: str, tmp_path: Path) -> None:
    said = ("<image><image>\nA?", "Yes.", "And so?", "No.")
    source = one_array(tmp_path, record(0, ["ok0.jpg", "ok1.jpg"], *said))
    convert(source, tmp_path / "out", clip_model=clip)
    found = only_document(tmp_path / "out")
    assert [info["matched_text_index"] for info in found["image_info"]] == [0, 0]
    assert found["similarity_source"].startswith("clip:")
    assert len({value for row in found["similarity_matrix"] for value in row}) > 2


def test_align_keeps_structure_roles_and_windows(clip: str, tmp_path: Path) -> None:
    from pipelines.align.run import align

    source = one_array(tmp_path, record(0, ["deep.png", "ok1.jpg"]), record(1, ["ok0.jpg"]))
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(
        tmp_path / "images" / "deep.png"
    )
    convert(source, tmp_path / "out")
    align(
        Align(shards=(str(tmp_path / "out"),), output=str(tmp_path / "al"), clip_model=clip,
              workers=0),
        quiet=True,
    )  # fmt: skip
    assert validate(Validate(shards=(str(tmp_path / "al"),), workers=0)).findings == []
    for before, after in zip(
        documents_of(tmp_path / "out").values(), documents_of(tmp_path / "al").values(), strict=True
    ):
        assert after["similarity_source"].startswith("clip:")
        for name in ("text_list", "roles", "alignment", "id"):
            assert after[name] == before[name]
        for old, new in zip(before["image_info"], after["image_info"], strict=True):
            assert new.get("window") == old.get("window")
            assert new["matched_text_index"] == old["matched_text_index"]


def test_the_shards_of_a_split_can_be_aligned(clip: str, tmp_path: Path) -> None:
    from pipelines.align.run import align

    source = make_conversations(tmp_path)
    more: dict[str, Any] = {"split": "train=0.6,val=0.4", "split_by": "patient"}
    convert_custom(source.options(tmp_path / "out", **more), quiet=True)
    for name in ("train", "val"):
        shards, output = (str(tmp_path / "out" / name),), str(tmp_path / f"aligned-{name}")
        align(Align(shards=shards, output=output, clip_model=clip, workers=0), quiet=True)
        assert validate(Validate(shards=(output,), workers=0)).findings == []
        assert status(Status(output=output)).records_done == 24
        assert documents_of(Path(output)).keys() == documents_of(tmp_path / "out" / name).keys()


def test_unknown_fields_survive(tmp_path: Path) -> None:
    source = one_array(tmp_path, record(0, ["ok0.jpg"], source={"site": 3}, score=1.50))
    convert(source, tmp_path / "out")
    found = only_document(tmp_path / "out")
    assert (found["source"], found["score"], found["id"]) == ({"site": 3}, 1.5, "scan-0000")


@pytest.mark.parametrize(
    ("roles", "texts", "listed"),
    [
        ("keep", ["What?", "It."], ["human", "gpt"]),
        ("drop", ["What?", "It."], None),
        ("Question: {human} Answer: {gpt}", ["Question: What?", "Answer: It."], None),
    ],
)
def test_roles(roles: str, texts: list[str], listed: list[str] | None, tmp_path: Path) -> None:
    source = one_array(tmp_path, record(0, ["ok0.jpg"], "<image>\nWhat?", "It."))
    convert(source, tmp_path / "out", roles=roles)
    found = only_document(tmp_path / "out")
    assert (found["text_list"], found.get("roles")) == (texts, listed)


def test_every_mismatch_is_counted_dropped_or_stops(tmp_path: Path) -> None:
    rows = [
        record(0, ["ok0.jpg"], "What?", "It."),
        record(1, ["ok0.jpg", "ok1.jpg"], "<image>\nWhat?", "It."),
        record(2, ["ok0.jpg"], "<image><image>\nWhat?", "It."),
        record(3, ["ok0.jpg"], "What?", "<image>\nIt."),
        record(4, ["ok0.jpg"]),
    ]
    source = one_array(tmp_path, *rows)
    kept = convert(source, tmp_path / "kept").tally
    reasons = ["fewer-tags-than-images", "more-tags-than-images", "no-tags", "tag-in-answer"]
    assert kept.notes == dict.fromkeys(reasons, 1)
    assert kept.documents == 5
    dropped = convert(source, tmp_path / "dropped", on_tag_mismatch="drop").tally
    assert (dropped.documents, dropped.documents_dropped) == (1, {"tag-mismatch": 4})
    done = run_cli(source.command(tmp_path / "error", "--on-tag-mismatch", "error"))
    assert done.returncode == 1
    assert "data.json: record 0: no-tags: 0 placeholders, 1 images" in done.stdout


def test_a_placeholder_of_ones_own(tmp_path: Path) -> None:
    source = one_array(tmp_path, record(0, ["ok0.jpg"], "See <pic> here.", "Yes."))
    convert(source, tmp_path / "out", placeholder=("<pic>",))
    assert only_document(tmp_path / "out")["text_list"] == ["See here.", "Yes."]


def test_names_below_the_root_may_be_absolute(tmp_path: Path) -> None:
    root = tmp_path / "images"
    rows = [record(0, [f"{root}/ok0.jpg"]), record(1, [f"file://{root}/ok1.jpg"]),
            record(2, ["/etc/passwd"])]  # fmt: skip
    source = one_array(tmp_path, *rows)
    tally = convert(source, tmp_path / "out").tally
    assert (tally.documents, tally.images_dropped) == (2, {"unsafe-path": 1})


def test_records_that_hold_their_images_need_no_root(tmp_path: Path) -> None:
    data = [picture(number, kind="PNG") for number in range(3)]
    text = [base64.b64encode(one).decode() for one in data]
    rows = [
        {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text[0]}"}},
            {"type": "text", "text": "What?"}]}]},
        {"text_list": ["A."], "image_info": [{"image_name": "a.png", "image_base64": text[1]}],
         "similarity_matrix": [[0.3]]},
        {"example": "_!_IMAGE1_!_ A.", "image_map": {"_!_IMAGE1_!_": {"base64_image": text[2]}}},
        record(3, ["data:image/png;base64,AA=A"]),
    ]  # fmt: skip
    source = one_array(tmp_path, *rows)
    tally = convert(source, tmp_path / "out", image_root=None).tally
    assert tally.images_dropped == {"unreadable": 1}
    found = [image_bytes(one["image_info"][0]) for one in documents_of(tmp_path / "out").values()]
    assert found == data


def test_parquet_rows_with_bytes(tmp_path: Path) -> None:
    rows = [
        {"id": n, "images": [{"bytes": picture(n), "path": f"{n}.jpg"}],
         "conversations": turns("<image>\nWhat?", f"It {n}.")}
        for n in range(5)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet", row_group_size=2)
    source = Conversations((str(tmp_path / "d.parquet"),), str(tmp_path))
    result = convert(source, tmp_path / "out", image_root=None)
    assert len(result.plan.units) == 3
    found = list(documents_of(tmp_path / "out").values())
    assert [image_bytes(one["image_info"][0]) for one in found] == [picture(n) for n in range(5)]
    assert [one["image_info"][0]["image_name"] for one in found] == [f"{n}.jpg" for n in range(5)]


def test_images_may_lie_in_a_tar(tmp_path: Path) -> None:
    import tarfile

    source = one_array(tmp_path, record(0, ["ok0.jpg", "ok1.jpg"]))
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "images.tar", "w") as archive:
        for number in range(2):
            archive.add(tmp_path / "images" / f"ok{number}.jpg", f"ok{number}.jpg")
    convert(Conversations(source.inputs, str(tmp_path / "tars")), tmp_path / "out")
    assert len(only_document(tmp_path / "out")["image_info"]) == 2


# --- 16 bits


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_the_window_of_each_image_is_recorded(name: str, tmp_path: Path) -> None:
    source = one_array(tmp_path, record(0, [name, "ok0.jpg"]))
    samples = np.random.default_rng(0).integers(0, 900, (64, 64)).astype(np.uint16)
    Image.fromarray(samples).save(tmp_path / "images" / name)
    tally = convert(source, tmp_path / "out").tally
    assert tally.notes == {"windowed": 1}
    deep, plain = only_document(tmp_path / "out")["image_info"]
    assert deep["window"]["by"] == "auto"
    assert 0 <= deep["window"]["low"] < deep["window"]["high"] < 900
    assert "window" not in plain
    gray = np.asarray(Image.open(io.BytesIO(image_bytes(deep))))
    assert 100 < gray.mean() < 155
    convert(source, tmp_path / "given", window="450,900")
    deep = only_document(tmp_path / "given")["image_info"][0]
    assert deep["window"] == {"low": 0.0, "high": 900.0, "by": "given"}
    convert(source, tmp_path / "full", window="full")
    assert "window" not in only_document(tmp_path / "full")["image_info"][0]


# --- refusals


def test_an_input_of_no_known_format_is_refused(tmp_path: Path) -> None:
    source = one_array(tmp_path, {"data": []}, {"more": 1})
    with pytest.raises(BadInputError, match="unknown-format: expected conversations, messages"):
        convert_custom(source.options(tmp_path / "out"), quiet=True)
    assert not (tmp_path / "out").exists()


def test_images_that_are_all_elsewhere_are_refused(tmp_path: Path) -> None:
    source = one_array(tmp_path, record(0, ["a/b.jpg"]), record(1, ["a/c.jpg"]))
    with pytest.raises(BadInputError, match=r"none of its 2 images was found in .*--image-root is"):
        convert_custom(source.options(tmp_path / "out"), quiet=True)
    with pytest.raises(BadInputError, match="none of its 2 images was found in the records"):
        convert_custom(source.options(tmp_path / "out", image_root=None), quiet=True)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"roles": "template"}, "--roles 'template': expected keep, drop or a template such as"),
        ({"window": "5"}, "--window 5: expected auto, full or LEVEL,WIDTH"),
        ({"format": "coco"}, "--format coco: expected auto, llava"),
        ({"keep_field": ("a",)}, "go with --pseudonymise"),
        ({"placeholder": ("",)}, "--placeholder '': expected a text"),
        ({"inputs": "a.json"}, "expected a list or tuple of paths"),
    ],
)
def test_options_that_make_no_sense(more: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        Conversations(("a.json",), "root").options(tmp_path, **more)
    assert problem in str(caught.value)


# --- the sample


def test_the_conversations_of_the_sample(tmp_path: Path) -> None:
    folder = ROOT / "examples" / "conversations"
    source = Conversations((str(folder),), str(ROOT / "examples"))
    tally = convert(source, tmp_path / "out").tally
    assert tally.documents_dropped == tally.images_dropped == {}
    assert tally.notes["windowed"] >= 1
    assert rejects_of(tmp_path / "out")
    assert manifest_of(tmp_path / "out")["kind"] == "custom"
    assert os.listdir(tmp_path / "out")


# --- object stores


@pytest.mark.slow
def test_inputs_images_and_splits_in_a_store_give_the_same_bytes(
    object_store: ObjectStore, bucket: str, tmp_path: Path
) -> None:
    """Arrays, their images and the folders of splits; images of the next records come early."""
    source = make_conversations(tmp_path)
    more: dict[str, Any] = {"split": "train=0.6,val=0.4", "split_by": "patient"}
    convert_custom(source.options(tmp_path / "out", **more), quiet=True)
    for path in sorted(tmp_path.glob("**/*")):
        if path.suffix in (".json", ".jpg") and "out" not in path.parts:
            filesystem(bucket).pipe(f"{bucket}/in/{path.relative_to(tmp_path)}", path.read_bytes())
    far = Conversations(
        tuple(f"{bucket}/in/{os.path.basename(path)}" for path in source.inputs),
        f"{bucket}/in/images",
    )
    done = run_cli(
        far.command(
            f"{bucket}/out", "--workers", "0", "--split", more["split"], "--split-by", "patient"
        )
    )
    assert done.returncode == 0, done.stderr
    for name in ("train", "val"):
        there = object_store.snapshot(f"{bucket}/out/{name}")
        assert there == snapshot(tmp_path / "out" / name)
