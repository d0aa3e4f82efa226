"""JPEGs whose last blocks hold something else behind the end of the picture.

Some encoders write such; most repeat the last column and row there.
"""

from io import BytesIO

import numpy as np
from PIL import Image

#: (marker of the frame header, px of a unit, chroma subsampling) of each kind.
_KINDS = {
    "baseline": (b"\xff\xc0", 16, "4:2:0"),
    "progressive": (b"\xff\xc2", 8, "4:4:4"),
    "cmyk": (b"\xff\xc0", 8, "4:4:4"),
}


def padded_jpeg(width: int, height: int, *, kind: str = "baseline") -> bytes:
    """A white picture; the rest of its last blocks is black."""
    marker, unit, subsampling = _KINDS[kind]
    gray = np.zeros((-(-height // unit) * unit, -(-width // unit) * unit), np.uint8)
    gray[:height, :width] = 255
    image = Image.fromarray(gray).convert("RGB")
    if kind == "cmyk":
        image = image.convert("CMYK")
    out = BytesIO()
    progressive = kind == "progressive"
    image.save(out, "JPEG", quality=95, subsampling=subsampling, progressive=progressive)
    data = bytearray(out.getvalue())
    size_at = data.index(marker) + 5
    data[size_at : size_at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)
