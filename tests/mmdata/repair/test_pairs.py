"""One pair put right; whole shards are in tests/pipelines/repair/test_repair.py."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mmdata.images import ImagePolicy
from mmdata.repair.pairs import mend_pair
from mmdata.samples.assemble import AssemblyPolicy
from mmdata.samples.pairs import PairOutcome
from tests.shard_factory import make_image

POLICY = AssemblyPolicy(images=ImagePolicy())
KEY = "000000000000"


def mended(**members: bytes) -> PairOutcome:
    return mend_pair(members, KEY, POLICY)


def metadata(pair: PairOutcome) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(b"".join(dict(pair.members)["json"]))
    return found


def test_columns_of_img2dataset_survive() -> None:
    raw = json.dumps(
        {
            "url": "https://example.org/a",
            "caption": "other",
            "original_width": 640,
            "original_height": 480,
            "exif": "{}",
            "similarity": 0.31,
            "sha256": "of the download",
        }
    )
    pair = mended(jpg=make_image(1), txt=b"A cat", json=raw.encode())
    found = metadata(pair)
    assert (found["url"], found["caption"], found["exif"]) == (
        "https://example.org/a",
        "A cat",
        "{}",
    )
    assert (found["original_width"], found["original_height"]) == (640, 480)
    assert (found["similarity"], found["similarity_source"]) == (0.31, "laion")
    assert pair.outcome.notes == []


def test_without_a_json_similarity_is_a_placeholder() -> None:
    found = metadata(mended(png=make_image(1, kind="png"), txt=b"A"))
    assert (found["similarity"], found["similarity_source"]) == (1.0, "placeholder")


def test_two_pictures_of_one_pair() -> None:
    pair = mended(jpg=make_image(1), png=make_image(2, kind="png"), txt=b"A")
    assert [kind for kind, _ in pair.members] == ["jpg", "txt", "json"]
    assert [note for _, note, _ in pair.outcome.notes] == ["member-lost"]


@given(
    st.dictionaries(st.sampled_from(["jpg", "txt", "json", "cls"]), st.binary(max_size=60)),
    st.booleans(),
)
def test_no_members_make_it_raise(members: dict[str, bytes], whole: bool) -> None:
    if whole and "jpg" in members:
        members["jpg"] = make_image(1)
    pair = mended(**members)
    assert bool(pair.members) != bool(pair.outcome.drop)
