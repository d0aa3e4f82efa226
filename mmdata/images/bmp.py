"""BMP headers (Windows BITMAPCOREHEADER to BITMAPV5HEADER); BMP is always re-encoded."""

import struct

from mmdata.images.facts import Header, truncated, unreadable


def read_header(data: bytes) -> Header:
    """Facts of a BMP file.

    Raises `ImageRejected`: `truncated` where the header is cut off, `unreadable` for 0 px.
    """
    if len(data) < 26:
        truncated(f"BMP cut in its header, after {len(data)} bytes")
    if data[14] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    if width <= 0 or height == 0:
        unreadable(f"BMP of {width} x {height} px")
    return Header(format="bmp", width=width, height=abs(height), reencode="bmp")
