"""One member put right; whole shards are in tests/pipelines/repair/test_repair.py."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mmdata.images import ImagePolicy
from mmdata.repair.documents import mend_document
from mmdata.samples.assemble import AssemblyPolicy, Outcome
from tests.shard_factory import encode, foreign, make_document, sha256

POLICY = AssemblyPolicy(images=ImagePolicy())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


def mended(document: dict[str, Any] | bytes, **row: Any) -> Outcome:
    return mend_document(encode(document), POLICY, row or None)


def result(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(b"".join(outcome.parts))
    return found


@given(seed=st.integers(0, 50), images=st.integers(0, 4), sentences=st.integers(1, 4))
def test_what_came_out_comes_out_again_byte_for_byte(
    seed: int, images: int, sentences: int
) -> None:
    once = mended(foreign(make_document(seed, images=images, sentences=sentences)))
    assert once.notes == []
    again = mended(b"".join(once.parts))
    assert (again.parts, again.row, again.notes) == (once.parts, once.row, [])


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(raw: bytes) -> None:
    outcome = mended(raw)
    assert bool(outcome.drop) != bool(outcome.parts)


@given(
    field=st.sampled_from(["text_list", "image_info", "similarity_matrix", "alignment", "url"]),
    value=JSON,
)
def test_no_value_of_a_field_makes_it_raise(field: str, value: object) -> None:
    outcome = mended(json.dumps(make_document(1) | {field: value}).encode())
    assert bool(outcome.drop) != bool(outcome.parts)


@given(
    field=st.sampled_from(
        ["image_name", "matched_text_index", "matched_sim", "image_base64", "width", "sha256"]
    ),
    value=JSON,
)
def test_no_value_in_an_image_costs_the_other(field: str, value: object) -> None:
    document = make_document(1, images=2)
    document["image_info"][0][field] = value
    outcome = mended(json.dumps(document).encode())
    if outcome.drop:
        assert outcome.drop[0] == "non-finite"  # NaN is no JSON
        return
    assert document["image_info"][1]["sha256"] in outcome.row["image_sha256"]


def test_unknown_fields_survive() -> None:
    document = make_document(1) | {"extra": {"n": 12345678901234567890123}}
    document["image_info"][0]["face_detections"] = [1.50]
    found = result(mended(document))
    assert found["extra"] == {"n": 12345678901234567890123}
    assert found["image_info"][0]["face_detections"] == [1.5]


def test_the_window_of_a_picture_survives() -> None:
    document = make_document(1, images=2)
    document["image_info"][0]["window"] = {"low": 10.0, "high": 900.5, "by": "auto"}
    document["image_info"][1]["window"] = {"low": "none"}
    found = {info["sha256"]: info.get("window") for info in result(mended(document))["image_info"]}
    stated, nonsense = (info["sha256"] for info in document["image_info"])
    assert found == {stated: {"low": 10.0, "high": 900.5, "by": "auto"}, nonsense: None}


def test_a_hash_that_is_wrong_itself_is_corrected_where_the_table_knows_better() -> None:
    document = make_document(1)
    right = document["image_info"][0]["sha256"]
    document["image_info"][0]["sha256"] = "0" * 64
    assert mended(document).dropped_images[0][0] == "hash-mismatch"
    row = {
        "image_sha256": [image["sha256"] for image in make_document(1)["image_info"]],
        "sha256": sha256(encode(document)),
        "text_sha256": "",
    }
    outcome = mended(document, **row)
    assert [note for _, note, _ in outcome.notes] == ["facts-corrected"]
    assert result(outcome)["image_info"][0]["sha256"] == right


def test_a_drop_realigns_the_rest_by_the_matrix() -> None:
    document = make_document(1, images=2, sentences=2)
    document["similarity_matrix"] = [[0.4, 0.3], [0.38, 0.1]]
    for row, (image, index) in enumerate(zip(document["image_info"], (1, 0), strict=True)):
        image["matched_text_index"] = index
        image["matched_sim"] = document["similarity_matrix"][row][index]
    document["image_info"][1]["image_base64"] = ""
    found = result(mended(document))
    assert [image["matched_text_index"] for image in found["image_info"]] == [0]
    assert found["similarity_matrix"] == [[0.4, 0.3]]
