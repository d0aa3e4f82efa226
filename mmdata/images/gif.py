"""GIF headers up to the second frame (GIF89a, sections 18 to 26).

The first frame may be larger than the screen that the header states, so both count: Pillow would
allocate the larger.
"""

import struct

from mmdata.images.facts import Header, truncated, unreadable

_IMAGE, _EXTENSION = 0x2C, 0x21
_MAX_BLOCKS = 100_000


def read_header(data: bytes) -> Header:
    """Facts of a GIF file, which is always re-encoded.

    Raises `ImageRejected`: `truncated` where the first frame is cut off, `unreadable` without one.
    """
    if len(data) < 13:
        truncated(f"GIF cut in its header, after {len(data)} bytes")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    pos = 13 + _table_bytes(flags)
    num_frames = 0
    for _ in range(_MAX_BLOCKS):
        kind = data[pos] if pos < len(data) else None
        if kind == _IMAGE and num_frames == 0:
            right, bottom, pos = _skip_image(data, pos)
            width, height = max(width, right), max(height, bottom)
            num_frames = 1
        elif kind == _EXTENSION and (num_frames == 0 or pos + 2 < len(data)):
            pos = _skip_blocks(data, pos + 2, needed=num_frames == 0)
        elif kind is None and num_frames == 0:
            truncated(f"GIF cut before its first frame, after {len(data)} bytes")
        else:
            num_frames += kind == _IMAGE
            break
    if num_frames == 0 or not width or not height:
        unreadable(f"GIF of {num_frames} frames, {width} x {height} px")
    return Header(
        format="gif",
        width=width,
        height=height,
        reencode="gif",
        multi_frame=num_frames > 1,
        trailing_bytes=max(0, len(data) - pos - 1) if data[pos : pos + 1] == b";" else 0,
    )


def _table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_image(data: bytes, pos: int) -> tuple[int, int, int]:
    """(right edge, bottom edge, where the next block stands) of the frame at `pos`."""
    if pos + 11 > len(data):
        truncated("GIF cut in the header of its first frame")
    left, top, width, height, flags = struct.unpack_from("<4HB", data, pos + 1)
    after = pos + 10 + _table_bytes(flags) + 1
    # Checked by size alone: a frame too large is refused whether or not its data is there.
    return left + width, top + height, _skip_blocks(data, after, needed=False)


def _skip_blocks(data: bytes, pos: int, *, needed: bool) -> int:
    """Past a chain of sub-blocks; the end of the file when it is cut and not `needed`."""
    while pos < len(data):
        size = data[pos]
        pos += 1 + size
        if size == 0:
            return pos
    if needed:
        truncated(f"GIF cut before its first frame, after {len(data)} bytes")
    return len(data)
