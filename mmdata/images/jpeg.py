"""JPEG headers and scans by a walk over the markers (ITU-T T.81, annexes B and G).

Python walks the dozen segments of the header (about 10 us); entropy-coded data is only searched
by regular expressions (2.5 GB/s). The walk exists for what no decoder tells: the orientation and
profile without Pillow, where the file ends, and whether a progressive file has all of its scans.
"""

import re
import struct

import msgspec

from mmdata.images.exif import exif_orientation, xmp_orientation
from mmdata.images.facts import Header, truncated, unreadable
from mmdata.images.icc import is_srgb

_SOS, _EOI, _SOI = 0xDA, 0xD9, 0xD8
_SUPPORTED_SOF = (0xC0, 0xC1, 0xC2)
_FRAME_CODES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_NO_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
_PROCESS = {3: "lossless", 11: "lossless", 9: "arithmetic-coded", 10: "arithmetic-coded"}
_NEXT_MARKER = re.compile(rb"\xff+[^\x00\xff]", re.DOTALL)
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_END_OF_IMAGE = re.compile(rb"\xff\xd9")
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_ICC = b"ICC_PROFILE\0"
_MAX_SCANS = (
    200  # libjpeg's own script has 10; each costs a pass over the image, so more is an attack
)
_NEVER = 255  # bit position of a coefficient that no scan has sent


class Frame(msgspec.Struct, kw_only=True):
    """What the markers in front of the first scan say; positions are byte offsets."""

    sof: int = 0
    width: int = 0
    height: int = 0
    components: bytes = b""
    """Component identifiers, in order."""
    full_chroma: bool = False
    exif: int | None = None
    xmp: int | None = None
    icc_parts: dict[int, bytes] = msgspec.field(default_factory=dict)
    junk: list[tuple[int, int]] = msgspec.field(default_factory=list)
    """(start, end) of the extraneous bytes between the segments."""
    first_scan: int = 0
    """Where the payload of the first SOS begins."""


class Walk(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file: its header, where it ends, and what its scans leave out."""

    header: Header
    end: int
    """Where the EOI marker begins."""
    junk: list[tuple[int, int]]
    missing: str | None
    """What the scans never bring to full precision, in words; None when nothing."""


def walk(data: bytes) -> Walk:
    """Walk over a JPEG file without decoding it.

    Raises `ImageRejected`: `truncated` when the file ends before its EOI marker, `unreadable` for
    what is malformed or not 8-bit Huffman-coded DCT (arithmetic, lossless, hierarchical, 12-bit:
    hardly any later reader of a shard could open those).
    """
    frame = _read_frame(data)
    payload, after = _segment(data, frame.first_scan - 2, _SOS)
    if frame.sof != 0xC2 and payload[:1] == bytes([len(frame.components)]):
        found = _END_OF_IMAGE.search(data, after)
        if found is None:
            truncated("JPEG without an end-of-image marker")
        end, missing = found.start(), None
    else:
        end, missing = _walk_scans(data, frame)
    header = _to_header(frame, trailing_bytes=len(data) - end - 2)
    return Walk(header=header, end=end, junk=frame.junk, missing=missing)


def _read_frame(data: bytes) -> Frame:
    if data[2:3] not in (b"\xff", b""):
        unreadable("JPEG start without a marker behind it")
    frame = Frame()
    pos = 2
    while True:
        code, _, pos = _next_marker(data, pos, frame)
        if code == _EOI:
            truncated("JPEG that ends before its first scan")
        if code == _SOI:
            unreadable("JPEG with a second start of image")
        if code in _NO_LENGTH:
            continue
        payload, after = _segment(data, pos, code)
        if code in _FRAME_CODES:
            _read_sof(code, payload, frame)
        elif code == _SOS:
            if not frame.sof:
                unreadable("JPEG scan without a frame header")
            frame.first_scan = pos + 2
            return frame
        elif 0xE1 <= code <= 0xE2:
            _read_app(code, payload, frame)
        pos = after


def _next_marker(data: bytes, pos: int, frame: Frame | None) -> tuple[int, int, int]:
    """(marker code, where its FF stands, where its segment begins)."""
    pair = data[pos : pos + 2]
    if len(pair) == 2 and pair[0] == 0xFF and 0 < pair[1] < 0xFF:
        return pair[1], pos, pos + 2
    found = _NEXT_MARKER.search(data, pos)
    if found is None:
        truncated(f"JPEG cut between segments, after {len(data)} bytes")
    if found.start() > pos and frame is not None:
        frame.junk.append((pos, found.start()))
    return data[found.end() - 1], found.start(), found.end()


def _segment(data: bytes, pos: int, code: int) -> tuple[bytes, int]:
    """(payload, where the next marker stands) of the segment whose length field is at `pos`."""
    if pos + 2 > len(data):
        truncated(f"JPEG cut in segment FF{code:02X}, after {len(data)} bytes")
    length = data[pos] << 8 | data[pos + 1]
    if length < 2:
        unreadable(f"JPEG segment FF{code:02X} of length {length}")
    after = pos + length
    if after > len(data):
        truncated(f"JPEG cut in segment FF{code:02X}: {length} bytes, {len(data) - pos} there")
    return data[pos + 2 : after], after


def _read_sof(code: int, payload: bytes, frame: Frame) -> None:
    if frame.sof:
        unreadable("JPEG with two frame headers")
    if code not in _SUPPORTED_SOF:
        process = _PROCESS.get(code & 0x0F, "hierarchical or other uncommon")
        unreadable(f"{process} JPEG (SOF{code & 0x0F}) is not supported")
    if len(payload) < 6 or len(payload) < 6 + 3 * payload[5]:
        unreadable("JPEG with a short frame header")
    precision, frame.height, frame.width, num_components = struct.unpack_from(">BHHB", payload)
    if precision != 8:
        unreadable(f"{precision}-bit JPEG is not supported")
    if not frame.width or not frame.height:
        unreadable(f"JPEG of {frame.width} x {frame.height} px")
    if num_components not in (1, 3, 4):
        unreadable(f"JPEG of {num_components} components")
    frame.components = payload[6 : 6 + 3 * num_components : 3]
    frame.full_chroma = len(set(payload[7 : 6 + 3 * num_components : 3])) == 1
    frame.sof = code


def _read_app(code: int, payload: bytes, frame: Frame) -> None:
    if code == 0xE2:
        if payload.startswith(_ICC) and len(payload) > 14:
            frame.icc_parts.setdefault(payload[12], payload[14:])
    elif payload.startswith(_EXIF):
        if frame.exif is None:
            frame.exif = exif_orientation(payload)
    elif payload.startswith(_XMP) and frame.xmp is None:
        frame.xmp = xmp_orientation(payload)


def _to_header(frame: Frame, trailing_bytes: int) -> Header:
    orientation = frame.exif or frame.xmp or 1
    icc: bytes | None = None
    if frame.icc_parts:
        icc = b"".join(part for _, part in sorted(frame.icc_parts.items()))
        icc = None if is_srgb(icc) else icc
    reencode = None
    if len(frame.components) == 4:
        reencode = "cmyk"
    elif orientation != 1:
        reencode = f"orientation {orientation}"
    elif icc is not None:
        reencode = "colour profile"
    return Header(
        format="jpeg",
        width=frame.width,
        height=frame.height,
        reencode=reencode,
        lossless=False,
        channels=len(frame.components),
        full_chroma=frame.full_chroma,
        orientation=orientation,
        icc=icc,
        trailing_bytes=trailing_bytes,
    )


def _walk_scans(data: bytes, frame: Frame) -> tuple[int, str | None]:
    """(where EOI stands, what is missing) of a file of several scans."""
    sent = {component: bytearray([_NEVER]) * 64 for component in frame.components}
    problem: str | None = None
    pos = frame.first_scan - 2
    for _ in range(_MAX_SCANS):
        payload, after = _segment(data, pos, _SOS)
        problem = _record_scan(payload, frame.sof, sent) or problem
        code, pos = _skip_to_scan(data, after)
        if code == _EOI:
            return pos, problem or _what_is_missing(sent)
    unreadable(f"JPEG of more than {_MAX_SCANS} scans")


def _skip_to_scan(data: bytes, pos: int) -> tuple[int, int]:
    """From entropy-coded data: (SOS, where its length stands) or (EOI, where its FF stands)."""
    found = _SCAN_END.search(data, pos)
    if found is None:
        truncated("JPEG without an end-of-image marker")
    pos = found.start()
    while True:
        code, start, pos = _next_marker(data, pos, None)
        if code == _EOI:
            return code, start
        if code == _SOS:
            return code, pos
        if code not in _NO_LENGTH:
            pos = _segment(data, pos, code)[1]


def _record_scan(payload: bytes, sof: int, sent: dict[int, bytearray]) -> str | None:
    """Note what a scan brings (T.81 B.2.3, G.1.1.1); says so where an earlier scan is missing."""
    num = payload[0] if payload else 0
    if not 1 <= num <= 4 or len(payload) < 4 + 2 * num:
        unreadable("JPEG with a malformed scan header")
    first, last, bits = payload[1 + 2 * num : 4 + 2 * num]
    high, low = bits >> 4, bits & 0x0F
    if sof != 0xC2:
        first, last, high, low = 0, 63, 0, 0
    if first > last or last > 63:
        unreadable(f"JPEG scan of coefficients {first} to {last}")
    problem = None
    for component in payload[1 : 1 + 2 * num : 2]:
        if component not in sent:
            unreadable(f"JPEG scan of an unknown component {component}")
        state = sent[component]
        if high and any(bit != high for bit in state[first : last + 1]):
            problem = f"a scan before one of component {component}, bit {low}, is missing"
        state[first : last + 1] = bytes([low]) * (last + 1 - first)
    return problem


def _what_is_missing(sent: dict[int, bytearray]) -> str | None:
    """T.81 would allow a file to leave coefficients out; no encoder at large does, and a file cut
    between two scans looks just like that, so that it counts as incomplete."""
    for component, state in sent.items():
        if any(state):
            never = state.count(_NEVER)
            coarse = sum(1 for bit in state if 0 < bit < _NEVER)
            return f"component {component}: {never} coefficients never sent, {coarse} cut short"
    return None
