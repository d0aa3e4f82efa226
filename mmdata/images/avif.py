"""AVIF, as far as the installed Pillow reads it: its header by libavif, which decodes no picture.

A picture is turned as its container says (`irot` and `imir`, MIAF 7.3.6.7), which Pillow tells by
way of EXIF, and never as an EXIF block in the file says. Always re-encoded: few readers of shards
open AVIF.
"""

from io import BytesIO

from PIL import AvifImagePlugin, Image, features

from mmdata.images.exif import exif_orientation
from mmdata.images.facts import Header, ImageRejected, truncated, unreadable
from mmdata.images.icc import is_srgb
from mmdata.images.pillow import pillow_errors
from schemas.reasons import ImageDrop

_MAX_HEADER_PIXELS = 2**31  # libavif's own limit is lower; the policy's is checked behind this


def read_header(data: bytes) -> Header:
    """Facts of an AVIF file.

    Raises `ImageRejected`: `unsupported-format` where Pillow was built without AVIF, `truncated`
    where a box is cut off, else as `pillow_errors` says.
    """
    if not features.check("avif"):
        detail = "an AVIF image: needs a Pillow that reads AVIF, or to be made JPEG or PNG first"
        raise ImageRejected(ImageDrop.UNSUPPORTED_FORMAT, detail)
    _check_boxes(data)
    with (
        pillow_errors("AVIF", _MAX_HEADER_PIXELS),
        Image.open(BytesIO(data), formats=("AVIF",)) as image,
    ):
        if not isinstance(image, AvifImagePlugin.AvifImageFile):
            unreadable("AVIF whose header cannot be read")
        icc = image.info.get("icc_profile")
        return Header(
            format="avif",
            width=image.width,
            height=image.height,
            reencode="avif",
            lossless=False,
            orientation=exif_orientation(image.info.get("exif", b"")) or 1,
            icc=None if not icc or is_srgb(icc) else icc,
            multi_frame=image.n_frames > 1,
        )


def _check_boxes(data: bytes) -> None:
    """Refuse a file that ends inside one of its outermost boxes (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size == 0:
            return  # to the end of the file
        if size < 8:
            unreadable(f"AVIF with a box of {size} bytes at byte {at}")
        if at + size > len(data):
            name = kind.decode("ascii", "replace")
            truncated(f"AVIF cut in {name}: {size} bytes, {len(data) - at} there")
        at += size
