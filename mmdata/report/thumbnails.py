"""Pictures small enough to put hundreds of them into a page.

A picture goes through the same checks as on its way into a shard, so that what a page hands to a
browser's decoders was read by ours, and nothing but pixels is left of it. At 288 px and quality 74
a thumbnail is 8 kB, 48 kB at most.
"""

from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from mmdata.images import ImagePolicy, prepare_image

MAX_SIDE = 288  # px; twice the 144 px of the smallest screen
MAX_BYTES = 48 * 2**10
_QUALITIES = (74, 50, 25)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A WebP of at most 48 KiB; width and height in px."""

    data: bytes
    width: int
    height: int


def thumbnail(data: bytes) -> Thumbnail:
    """A small version of an encoded image.

    Raises:
        ImageRejected: it cannot be decoded, or is of no kind that goes into shards.
    """
    policy = ImagePolicy(max_side=MAX_SIDE, max_pixels=64_000_000, max_bytes=2**31)
    small = prepare_image(data, policy)
    with Image.open(BytesIO(small.data), formats=(small.format.upper(),)) as image:
        pixels = image.convert("RGB")
    for quality in _QUALITIES:
        sink = BytesIO()
        pixels.save(sink, "WEBP", quality=quality, method=4)
        if sink.tell() <= MAX_BYTES:
            break
    return Thumbnail(sink.getvalue(), pixels.width, pixels.height)
