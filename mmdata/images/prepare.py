"""From the bytes of an image as they came to the bytes that go into a shard.

Fit images pass through unchanged, so that nothing is lost twice and most of a conversion costs no
encoding; the rest is re-encoded exactly once. The result passes through unchanged itself.
"""

import msgspec
from msgspec import structs

from mmdata.images.deep import in_eight_bits
from mmdata.images.facts import Format, ImageRejected
from mmdata.images.normalise import encode, normalise, windowed
from mmdata.images.pillow import pillow_errors
from mmdata.images.policy import ImagePolicy
from mmdata.images.resize import smaller_size
from mmdata.images.strip import strip_metadata
from mmdata.images.verify import Inspected, inspect
from schemas.document import Window
from schemas.reasons import ImageDrop, ImageNote


class PreparedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An encoded image file that is fit for a shard."""

    data: bytes
    width: int
    """px, of `data` as decoded."""
    height: int
    """px, of `data` as decoded."""
    format: Format
    """`jpeg`, `png` or `webp`."""
    reencoded: bool
    notes: tuple[ImageNote, ...]
    window: Window | None = None
    """That 16-bit and deeper samples were scaled by; None where the policy asks for none."""


def prepare_image(data: bytes, policy: ImagePolicy) -> PreparedImage:
    """Verify `data`, and re-encode it where it cannot go into a shard as it is.

    Unchanged: JPEG, PNG and WebP of 8 bits, RGB or gray, one frame, upright (EXIF orientation, or
    XMP's where EXIF says none), with no or an sRGB profile, trailing bytes included. A picture in
    picture (MPO, gain map) counts as trailing bytes. Re-encoded: CMYK; 1, 2, 4 and 16 bits;
    palette and alpha, on white; rotated; other profiles; GIF, BMP, TIFF; first frame of several.
    Lossless sources become PNG, lossy ones JPEG of quality 95, without EXIF or profile, unless the
    policy asks for one format or another quality; what is larger than its `max_side` is resized.
    With `strip` nothing but the picture stays of what passes through.

    The same bytes, policy and codec libraries give the same result. Raises `ImageRejected` and
    nothing else, for any bytes; its reasons are those of `verify_image`.
    """
    seen = inspect(data, policy)
    header = seen.header
    if header.reencode is None:
        return PreparedImage(
            data=strip_metadata(data, header.format) if policy.strip else data,
            width=header.width,
            height=header.height,
            format=header.format,
            reencoded=False,
            notes=seen.notes,
        )
    return _reencode(data, seen, policy)


def _reencode(data: bytes, seen: Inspected, policy: ImagePolicy) -> PreparedImage:
    header = seen.header
    with pillow_errors(header.format.upper(), policy.max_pixels):
        image, box = seen.take_image(data, policy)
        # Of a TIFF, which Pillow has turned upright already; of others, as the header has it.
        stored = image.size if header.format == "tiff" else (header.width, header.height)
        image, window = windowed(image, header, policy)
        deep = in_eight_bits(image, data, header, policy.max_pixels)
        if deep is not None:
            image, header = deep, structs.replace(header, icc=None)
        del deep
        image = normalise(image, header, smaller_size(*stored, policy), box)
        encoded, name = encode(image, header, policy)
    if len(encoded) > policy.max_bytes:
        detail = f"{len(encoded)} bytes when re-encoded, more than {policy.max_bytes}"
        raise ImageRejected(ImageDrop.TOO_LARGE, detail)
    return PreparedImage(
        data=encoded,
        width=image.width,
        height=image.height,
        format=name,
        reencoded=True,
        notes=(*seen.notes, *([ImageNote.WINDOWED] if window else []), ImageNote.REENCODED),
        window=window,
    )
