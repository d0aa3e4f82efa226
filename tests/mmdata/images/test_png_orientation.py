"""Which way up a PNG is, wherever its EXIF was put."""

import zlib
from io import BytesIO

import pytest
from PIL import Image

from mmdata.images import ImagePolicy, ImageRejected, prepare_image, verify_image
from tests.mmdata.images.samples import chunk
from tests.mmdata.images.test_resize import smooth

XMP = b'<x:xmpmeta xmlns:tiff="a" tiff:Orientation="%d"/>'
XMP_IDENTIFIER = b"http://ns.adobe.com/xap/1.0/\0"


def exif(orientation: int) -> bytes:
    """A block as it stands in a JPEG."""
    made = Image.Exif()
    made[0x0112] = orientation
    return made.tobytes()


def hexadecimal(kind: str, block: bytes) -> bytes:
    """ImageMagick's form: lines of 72 digits."""
    digits = block.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return f"\n{kind}\n{len(block):>8}\n{lines}\n".encode()


def text_chunk(form: str, keyword: bytes, text: bytes) -> bytes:
    """A text in one of PNG's three ways."""
    match form:
        case "tEXt":
            return chunk(b"tEXt", keyword + b"\0" + text)
        case "zTXt":
            return chunk(b"zTXt", keyword + b"\0\0" + zlib.compress(text))
        case "iTXt":
            return chunk(b"iTXt", keyword + b"\0\0\0\0\0" + text)
        case _:
            return chunk(b"iTXt", keyword + b"\0\1\0en\0k\0" + zlib.compress(text))


def with_chunk(*chunks: bytes) -> bytes:
    """A PNG of 120 x 60 px with chunks in front of its pixels."""
    out = BytesIO()
    smooth(120, 60).save(out, "PNG")
    data = out.getvalue()
    return data[:33] + b"".join(chunks) + data[33:]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["tEXt", "zTXt", "iTXt", "iTXt compressed"])
@pytest.mark.parametrize(
    "keyword", [b"Raw profile type exif", b"Raw profile type APP1", b"Raw profile type xmp"]
)
def test_a_raw_profile_says_which_way_up(form: str, keyword: bytes, orientation: int) -> None:
    block, kind = exif(orientation), keyword.rpartition(b" ")[2].decode().lower()
    if kind == "xmp":
        block = XMP_IDENTIFIER + XMP % orientation
    data = with_chunk(text_chunk(form, keyword, hexadecimal(kind, block)))
    prepared = prepare_image(data, ImagePolicy())
    assert (prepared.width, prepared.height) == ((120, 60) if orientation < 5 else (60, 120))
    assert prepared.reencoded is (orientation != 1)


def test_the_chunk_counts_before_a_text_and_exif_before_xmp() -> None:
    raw = text_chunk("zTXt", b"Raw profile type exif", hexadecimal("exif", exif(6)))
    xmp = text_chunk("iTXt", b"XML:com.adobe.xmp", XMP % 8)
    assert verify_image(with_chunk(raw, xmp), ImagePolicy()).needs_reencode == "orientation 6"
    plain = chunk(b"eXIf", exif(3)[6:])
    for chunks in ((plain, raw, xmp), (xmp, raw, plain)):
        found = verify_image(with_chunk(*chunks), ImagePolicy())
        assert found.needs_reencode == "orientation 3"


@pytest.mark.parametrize(
    "text",
    [b"", b"\nexif\n      12\n", b"no profile", b"\nexif\n 9\n4", b"\nexif\n 9\nzz", b"\xff" * 40],
)
def test_a_damaged_profile_says_nothing(text: bytes) -> None:
    data = with_chunk(text_chunk("tEXt", b"Raw profile type exif", text))
    assert prepare_image(data, ImagePolicy()).data == data


def test_a_text_that_unpacks_to_very_much_says_nothing() -> None:
    bomb = text_chunk("zTXt", b"Raw profile type exif", b"\nexif\n 9\n" + b"0" * 5_000_000)
    assert verify_image(with_chunk(bomb), ImagePolicy(verify="header")).needs_reencode is None
    with pytest.raises(ImageRejected, match="unreadable: PNG: Decompressed data too large"):
        verify_image(with_chunk(bomb), ImagePolicy())
