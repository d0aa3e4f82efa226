"""Thumbnails are small whatever they are made of, and keep the shape of the picture."""

from io import BytesIO

import pytest
from PIL import Image

from mmdata.images import ImageRejected
from mmdata.report.thumbnails import MAX_BYTES, MAX_SIDE, thumbnail
from tests.shard_factory import make_image


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_a_picture_becomes_a_small_webp_of_the_same_shape(kind: str) -> None:
    small = thumbnail(make_image(width=800, height=400, kind=kind))
    with Image.open(BytesIO(small.data)) as image:
        assert (image.format, image.size) == ("WEBP", (MAX_SIDE, MAX_SIDE // 2))
    assert (small.width, small.height) == (MAX_SIDE, MAX_SIDE // 2)


def test_noise_which_does_not_compress_stays_within_the_bound() -> None:
    assert len(thumbnail(make_image(width=1000, height=1000)).data) <= MAX_BYTES


def test_what_is_behind_a_small_picture_is_not_taken_along() -> None:
    """A picture that needs no resizing passes into shards unchanged; into a page it does not."""
    data = make_image() + b"<script>alert(1)</script>" * 10_000
    small = thumbnail(data)
    assert b"script" not in small.data
    assert (small.width, small.height) == (24, 16)


def test_thin_pictures_keep_a_pixel() -> None:
    small = thumbnail(make_image(width=3000, height=2, kind="png"))
    assert (small.width, small.height) == (MAX_SIDE, 1)


@pytest.mark.parametrize("data", [b"", b"<svg onload=alert(1)>", make_image()[:200]])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ImageRejected):
        thumbnail(data)
