"""PNG and TIFF files of samples that Pillow cannot write, put together from their parts."""

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_TIFF_TYPES = {3: "H", 4: "I", 7: "B"}
_SHORT, _LONG, _BYTES = 3, 4, 7


def chunk(kind: bytes, payload: bytes) -> bytes:
    """A chunk of PNG."""
    crc = zlib.crc32(kind + payload)
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", crc)


def png16(samples: NDArray[np.uint16], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16 bits; (height, width, channels), with chunks in front of the pixels."""
    height, width, channels = samples.shape
    rows = samples.astype(">u2").tobytes()
    stride = width * channels * 2
    filtered = b"".join(b"\0" + rows[at : at + stride] for at in range(0, len(rows), stride))
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(filtered)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(
    samples: NDArray[Any], *, order: str = "<", packed: bool = False, **tags: list[int]
) -> bytes:
    """A TIFF of one strip; (height, width) or (height, width, channels).

    Args:
        samples: of any number type; it becomes the file's.
        order: `<` or `>`: which byte of a sample stands first.
        packed: whether the strip is deflated.
        tags: `photometric`, `extra`, `icc`; `bits` of gray that are packed: 12 of an even width.
    """
    samples = samples.reshape(*samples.shape[:2], -1)
    height, width, channels = samples.shape
    body = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    if "bits" in tags:
        pairs = samples.reshape(-1, 2).astype(int)
        body = b"".join(int(a << 12 | b).to_bytes(3, "big") for a, b in pairs)
    body = zlib.compress(body) if packed else body
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    fields = {
        256: (_LONG, [width]), 257: (_LONG, [height]),
        258: (_SHORT, tags.get("bits", [samples.dtype.itemsize * 8] * channels)),
        259: (_SHORT, [8 if packed else 1]),
        262: (_SHORT, tags.get("photometric", [1])), 273: (_LONG, [0]),
        277: (_SHORT, [channels]), 278: (_LONG, [height]), 279: (_LONG, [len(body)]),
        339: (_SHORT, [kind] * channels),
    }  # fmt: skip
    if "extra" in tags:
        fields[338] = (_SHORT, tags["extra"])
    if "icc" in tags:
        fields[34675] = (_BYTES, tags["icc"])
    at = 8 + 2 + 12 * len(fields) + 4
    beside = b""
    encoded = {}
    for tag, (form, values) in sorted(fields.items()):
        value = struct.pack(f"{order}{len(values)}{_TIFF_TYPES[form]}", *values)
        if len(value) > 4:
            value, beside = struct.pack(f"{order}I", at + len(beside)), beside + value
            beside += bytes(len(beside) % 2)
        encoded[tag] = (form, len(values), value.ljust(4, b"\0"))
    strip = struct.pack(f"{order}I", at + len(beside))
    encoded[273] = (*encoded[273][:2], strip)
    entries = b"".join(struct.pack(f"{order}HHI", t, f, n) + v for t, (f, n, v) in encoded.items())
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    count = struct.pack(f"{order}H", len(fields))
    return start + count + entries + bytes(4) + beside + body
