"""Samples of layout pairs: our names in their JSON, thresholds, and what became of the picture."""

import io
import json
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from mmdata.images import ImagePolicy
from mmdata.samples.assemble import AssemblyPolicy, Draft, Scores, check
from mmdata.samples.pairs import drop_below, finish_pair
from mmdata.sources.laion_columns import Columns
from mmdata.sources.laion_rows import LaionRow, parse_row
from mmdata.sources.names import StoredImage
from tests.corpus import picture

COLUMNS = Columns(url="URL", caption="TEXT", similarity="similarity")


def draft_of(image: bytes, min_similarity: float | None = None, **values: Any) -> Draft:
    row = LaionRow({"URL": "http://x/1", "TEXT": "a", "similarity": 0.5} | values, COLUMNS)
    policy = AssemblyPolicy(images=ImagePolicy(), min_similarity=min_similarity)
    return check(parse_row(row).document, lambda name: StoredImage(image, name), policy)


def metadata(draft: Draft, scores: Scores | None = None) -> dict[str, Any]:
    members = dict(finish_pair(draft, "k", scores).members)
    found: dict[str, Any] = json.loads(members["json"][0])
    return found


def test_columns_of_the_source_do_not_overrule_ours() -> None:
    found = metadata(draft_of(picture(1), key="theirs", status="failed", sha256=1, LICENSE="x"))
    assert (found["key"], found["status"], found["LICENSE"]) == ("k", "success", "x")
    assert len(found["sha256"]) == 64


def test_what_was_encoded_anew_says_so() -> None:
    sink = io.BytesIO()
    Image.open(io.BytesIO(picture(1))).save(sink, "GIF")
    pair = finish_pair(draft_of(sink.getvalue()), "k")
    assert [kind for kind, _ in pair.members] == ["png", "txt", "json"]
    assert pair.outcome.row["reencoded"] == [True]
    assert json.loads(pair.members[2][1][0])["original_width"] is None


def test_computed_similarities_replace_the_sources() -> None:
    found = metadata(draft_of(picture(1)), Scores(np.array([[0.125]]), "clip:a/b"))
    assert (found["similarity"], found["similarity_source"]) == (0.125, "clip:a/b")


def test_a_threshold_is_of_the_similarity_that_counts() -> None:
    for own, computed, stays in ((0.5, None, True), (0.1, None, False), (0.1, 0.4, True)):
        draft = draft_of(picture(1), min_similarity=0.3, similarity=own)
        scores = None if computed is None else Scores(np.array([[computed]]), "clip:a/b")
        scores = drop_below(draft, scores)
        pair = finish_pair(draft, "k", scores)
        assert bool(pair.members) is stays
        reasons = [reason.value for reason, _ in pair.outcome.dropped_images.values()]
        assert reasons == ([] if stays else ["low-similarity"])


def test_without_its_picture_a_pair_is_none() -> None:
    pair = finish_pair(draft_of(b"<html>"), "k")
    assert pair.members == []
    assert pair.outcome.drop is not None
    assert pair.outcome.drop[1] == "its image was dropped: not-an-image"
    assert msgspec.json.encode(pair.outcome.row) == b"{}"
