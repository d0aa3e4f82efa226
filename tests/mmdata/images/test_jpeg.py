"""JPEGs: the marker walk, strict decoding, and what damage is called."""

import re
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmdata.images import ImagePolicy, ImageRejected, prepare_image, verify_image

PHOTOS = Path(__file__).parents[2] / "assets" / "images" / "photos"
BASELINE = (PHOTOS / "pillow__hopper.jpg").read_bytes()
PROGRESSIVE = (PHOTOS / "pillow__app13-multiple.jpg").read_bytes()
CMYK = (PHOTOS / "pillow__pil_sample_cmyk.jpg").read_bytes()
EOI = b"\xff\xd9"
DECODE = ImagePolicy()


def reason(data: bytes, policy: ImagePolicy = DECODE) -> str:
    with pytest.raises(ImageRejected) as caught:
        verify_image(data, policy)
    return str(caught.value.reason)


def notes(data: bytes) -> list[str]:
    prepared = prepare_image(data, DECODE)
    assert prepared.data == data
    return [str(note) for note in prepared.notes]


def save_jpeg(**options: object) -> bytes:
    out = BytesIO()
    Image.open(BytesIO(BASELINE)).save(out, "JPEG", **options)
    return out.getvalue()


def scan_starts(data: bytes) -> list[int]:
    """Where each scan begins, with the Huffman tables in front of it."""
    frame = data.rindex(b"\xff\xc2")  # behind the thumbnail, which is a JPEG of its own
    scans = re.finditer(
        rb"(?:\xff\xc4\0.{17}(?:(?!\xff[\xc4\xda]).)*)*\xff\xda\0", data[frame:], re.S
    )
    return [frame + scan.start() for scan in scans]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"subsampling": 0},
        {"restart_marker_blocks": 2},
        {"keep_rgb": True},
        {"optimize": True},
    ],
)
def test_what_encoders_write_passes_through(options: dict[str, object]) -> None:
    assert notes(save_jpeg(**options)) == []


@pytest.mark.parametrize("index", range(3), ids=["baseline", "progressive", "cmyk"])
@given(where=st.floats(0, 1, exclude_max=True), close=st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_cut_jpeg_is_never_accepted(index: int, where: float, close: bool) -> None:
    source = (BASELINE, PROGRESSIVE, CMYK)[index]
    cut = source[: int(where * source.rindex(EOI))]
    with pytest.raises(ImageRejected):
        prepare_image(cut + EOI if close else cut, DECODE)


def test_a_small_jpeg_is_not_accepted_at_any_cut() -> None:
    out = BytesIO()
    Image.open(BytesIO(BASELINE)).resize((24, 24)).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    for cut in range(len(data) - 2):
        for tail in (b"", EOI):
            with pytest.raises(ImageRejected):
                verify_image(data[:cut] + tail, DECODE)


def test_cut_scan_data_is_truncated() -> None:
    for source in (BASELINE, PROGRESSIVE, CMYK):
        cut = source[: len(source) * 3 // 4]
        assert reason(cut) == "truncated"
        assert reason(cut + EOI) == "truncated"


def test_missing_end_of_image_is_truncated() -> None:
    assert reason(BASELINE[: BASELINE.rindex(EOI)]) == "truncated"
    assert reason(BASELINE[: BASELINE.rindex(EOI)], ImagePolicy(verify="header")) == "truncated"


@pytest.mark.parametrize("verify", ["header", "decode", "full"])
def test_a_progressive_jpeg_without_its_last_scans_is_incomplete(verify: str) -> None:
    policy = ImagePolicy(verify=verify)  # type: ignore[arg-type]
    starts = scan_starts(PROGRESSIVE)
    assert len(starts) >= 5
    for start in starts[1:]:
        whole_scans = PROGRESSIVE[:start] + EOI
        Image.open(BytesIO(whole_scans)).load()  # no decoder complains
        assert reason(whole_scans, policy) == "incomplete-scans"


def test_a_progressive_jpeg_without_a_middle_scan_is_incomplete() -> None:
    starts = scan_starts(PROGRESSIVE)
    without = PROGRESSIVE[: starts[-3]] + PROGRESSIVE[starts[-2] :]
    assert reason(without) == "incomplete-scans"


def test_a_sequential_jpeg_without_one_component_is_incomplete() -> None:
    """Make a three-scan file by relabelling a gray one: only component 1 is ever sent."""
    gray = BytesIO()
    Image.open(BytesIO(BASELINE)).convert("L").save(gray, "JPEG")
    data = gray.getvalue()
    sof = data.index(b"\xff\xc0")
    length = int.from_bytes(data[sof + 2 : sof + 4])
    components = b"\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    header = data[sof + 4 : sof + 9] + components
    frame = b"\xff\xc0" + (len(header) + 2).to_bytes(2) + header
    made = data[:sof] + frame + data[sof + 2 + length :]
    assert reason(made) == "incomplete-scans"


def test_extraneous_bytes_in_a_complete_file_are_noted_or_dropped() -> None:
    junk = (PHOTOS / "pillow__junk_jpeg_header.jpg").read_bytes()
    end = BASELINE.rindex(EOI)
    padded = BASELINE[:end] + b"\0\0\0" + BASELINE[end:]
    for data in (junk, padded):
        assert notes(data) == ["jpeg-warning"]
        assert reason(data, ImagePolicy(jpeg_warnings="drop")) == "jpeg-warning"


def test_extraneous_bytes_excuse_no_damage() -> None:
    junk = (PHOTOS / "pillow__junk_jpeg_header.jpg").read_bytes()
    assert reason(junk[:60_000] + EOI) == "truncated"


def test_bytes_behind_the_image_are_kept_and_noted() -> None:
    for tail in (b"PK\x03\x04", EOI, BASELINE):
        assert notes(BASELINE + tail) == ["trailing-bytes"]


def test_fill_bytes_before_a_marker_are_nothing_special() -> None:
    end = BASELINE.rindex(EOI)
    assert notes(BASELINE[:end] + b"\xff\xff" + BASELINE[end:]) == []


@pytest.mark.parametrize(
    ("old", "new", "detail"),
    [
        (b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c", "12-bit JPEG is not supported"),
        (b"\xff\xc0", b"\xff\xc9", "arithmetic-coded JPEG (SOF9) is not supported"),
        (b"\xff\xc0", b"\xff\xc3", "lossless JPEG (SOF3) is not supported"),
    ],
)
def test_other_kinds_of_jpeg_are_named(old: bytes, new: bytes, detail: str) -> None:
    with pytest.raises(ImageRejected) as caught:
        verify_image(BASELINE.replace(old, new, 1), DECODE)
    assert (caught.value.reason, caught.value.detail) == ("unreadable", detail)


def test_an_attack_by_scans_is_refused_before_decoding() -> None:
    scan = PROGRESSIVE[scan_starts(PROGRESSIVE)[-1] : PROGRESSIVE.rindex(EOI)]
    attack = PROGRESSIVE[: PROGRESSIVE.rindex(EOI)] + scan * 300 + EOI
    with pytest.raises(ImageRejected, match="more than 200 scans"):
        verify_image(attack, DECODE)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_jpeg_raises_nothing_else(data: st.DataObject) -> None:
    source = (BASELINE, PROGRESSIVE, CMYK)[data.draw(st.integers(0, 2))]
    damaged = bytearray(source)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(2, len(source) - 1) | st.integers(2, 700))
        damaged[at] = data.draw(st.integers(0, 255))
    with suppress(ImageRejected):
        prepare_image(bytes(damaged), DECODE)


def test_photo_fixture_reads_the_same_files(photo: Callable[[str], bytes]) -> None:
    assert photo("pillow__hopper.jpg") == BASELINE
