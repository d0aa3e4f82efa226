"""Every hostile file has one known outcome, at every level of verification."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mmdata.images import ImagePolicy, ImageRejected, prepare_image, verify_image

ASSETS = Path(__file__).parents[2] / "assets" / "images" / "hostile"

REJECTED = {
    "bad_crc.png": "unreadable",
    "bomb.png": "too-large",
    "html.jpg": "not-an-image",
    "json_error.png": "not-an-image",
    "lying_dimensions.jpg": "too-large",
    "no_eoi.jpg": "truncated",
    "pillow_decompression_bomb.gif": "too-large",
    "pillow_truncated_jpeg.jpg": "truncated",
    "svg.jpg": "not-an-image",
    "truncated.jpg": "truncated",
    "truncated.png": "truncated",
    "truncated_in_header.jpg": "truncated",
    "zero_bytes.jpg": "truncated",
}
KEPT = {  # format in the shard, size, notes
    "animated.gif": ("png", (64, 48), ["reencoded"]),  # five equal frames, written as one
    "garbage_tail.jpg": ("jpeg", (480, 360), ["trailing-bytes"]),
    "jpeg_named.webp": ("jpeg", (128, 128), []),
    "jpeg_plus_zip.jpg": ("jpeg", (480, 360), ["trailing-bytes"]),
    "one_pixel.png": ("png", (1, 1), []),
    "png_named.jpg": ("png", (162, 150), ["reencoded"]),
    "very_wide.jpg": ("jpeg", (4000, 3), []),
}


def test_every_hostile_file_is_in_a_table() -> None:
    assert {path.name for path in ASSETS.iterdir()} == set(REJECTED) | set(KEPT)


@pytest.mark.parametrize("verify", ["decode", "full"])
@pytest.mark.parametrize(("name", "reason"), REJECTED.items())
def test_rejected(hostile: Callable[[str], bytes], name: str, reason: str, verify: str) -> None:
    policy = ImagePolicy(verify=verify)  # type: ignore[arg-type]
    for function in (prepare_image, verify_image):
        with pytest.raises(ImageRejected) as caught:
            function(hostile(name), policy)
        assert caught.value.reason == reason
        assert caught.value.detail
        assert "\n" not in caught.value.detail


@pytest.mark.parametrize(("name", "expected"), KEPT.items())
def test_kept(
    hostile: Callable[[str], bytes], name: str, expected: tuple[str, tuple[int, int], list[str]]
) -> None:
    data = hostile(name)
    prepared = prepare_image(data, ImagePolicy())
    got = (prepared.format, (prepared.width, prepared.height), list(prepared.notes))
    assert got == expected
    assert (prepared.data == data) is not prepared.reencoded


def test_headers_alone_find_what_ends_early(hostile: Callable[[str], bytes]) -> None:
    policy = ImagePolicy(verify="header")
    for name, reason in REJECTED.items():
        if name == "bad_crc.png":  # CRCs are checked when decoding
            continue
        with pytest.raises(ImageRejected) as caught:
            verify_image(hostile(name), policy)
        assert caught.value.reason == reason, name


def test_details_read_well(hostile: Callable[[str], bytes]) -> None:
    expected = {
        "truncated.png": "PNG cut in IDAT: 8192 bytes, 5345 there",
        "bad_crc.png": "PNG with a wrong CRC in IDAT at byte 1097",
        "bomb.png": "PNG of 20000 x 20000 px, more than 32000000 pixels",
        "html.jpg": "HTML, 101 bytes",
        "zero_bytes.jpg": "empty file (0 bytes)",
    }
    for name, detail in expected.items():
        with pytest.raises(ImageRejected) as caught:
            prepare_image(hostile(name), ImagePolicy())
        assert caught.value.detail == detail
