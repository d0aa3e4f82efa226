"""TIFF and BigTIFF headers: the first directory (TIFF 6.0, section 2); always re-encoded.

Sizes of tiles and samples count as well as the image's: libtiff allocates by them.
"""

import struct

import msgspec

from mmdata.images.facts import Header, truncated, unreadable

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_SAMPLES, _PLANAR, _TILE_WIDTH, _TILE_LENGTH, _EXTRA, _FORMAT = 277, 284, 322, 323, 338, 339
_KINDS = {1: "unsigned integers", 2: "signed integers", 3: "floats", 5: "complex integers"}
_SIGNED = 2
_UNCOMPRESSED = 1
#: Signed samples of fewer bits are taken by Pillow for unsigned ones; of others it knows the sign.
_LEAST_DEFINED = 16
_COLOURS = {0: "gray", 1: "gray", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELab"}
_JPEG_COMPRESSIONS = (6, 7)
_WHITE_IS_ZERO = 0
_TWELVE, _WHITE_OF_12_BITS = 12, 4095
_MAX_SAMPLES = 5
_MAX_ENTRIES = 4096
_INLINE = {1: "B", 3: "H", 4: "I", 16: "Q"}  # field types BYTE, SHORT, LONG, LONG8


class _Layout(msgspec.Struct, frozen=True):
    """How a directory is written, in classic TIFF or BigTIFF."""

    order: str
    count: str
    entry_bytes: int
    value_at: int
    offset: str


def read_header(data: bytes) -> Header:
    """Facts of the first page of a TIFF file.

    Raises `ImageRejected`: `truncated` where the directory lies beyond the end of the file,
    `unreadable` for impossible sizes.
    """
    try:
        tags, has_next = _first_directory(data)
    except (struct.error, OverflowError):  # BigTIFF offsets have 64 bits
        truncated(f"TIFF cut in its directory, after {len(data)} bytes")
    width, height = tags.get(_WIDTH, 0), tags.get(_LENGTH, 0)
    if not width or not height or tags.get(_SAMPLES, 1) > _MAX_SAMPLES:
        unreadable(f"TIFF of {width} x {height} px, {tags.get(_SAMPLES, 1)} samples")
    bits, samples = tags.get(_BITS, 1), tags.get(_SAMPLES, 1)
    gray = tags.get(_PHOTOMETRIC) in (0, 1)
    unsigned = tags.get(_FORMAT, 1) == 1
    if samples == 2 and bits == 16 and tags.get(_PLANAR, 1) != 1:
        unreadable(f"TIFF of {_form(tags)}, in planes, that nothing here reads")
    if bits < _LEAST_DEFINED and tags.get(_FORMAT, 1) == _SIGNED:
        unreadable(f"TIFF of {_form(tags)}, whose range is not defined")
    return Header(
        format="tiff",
        width=width,
        height=height,
        reencode="tiff",
        lossless=tags.get(_COMPRESSION) not in _JPEG_COMPRESSIONS,
        multi_frame=has_next,
        buffer_pixels=tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_LENGTH, 0),
        white_is_zero=tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and bits == 16,
        deep=bits == 16 and unsigned,
        gray_alpha=gray and samples == 2,
        extra=tags.get(_EXTRA, 2),
        low_byte_first=data[:2] == b"II",
        unpacked=tags.get(_COMPRESSION, _UNCOMPRESSED) == _UNCOMPRESSED,
        form=_form(tags),
        unsigned=bits == 32 and unsigned,
        white=_WHITE_OF_12_BITS if bits == _TWELVE else 65_535,
    )


def _form(tags: dict[int, int]) -> str:
    """The samples in words: how many of which kind, and what they stand for."""
    samples, bits = tags.get(_SAMPLES, 1), tags.get(_BITS, 1)
    kind = _KINDS.get(tags.get(_FORMAT, 1), "samples of no known kind")
    photometric = tags.get(_PHOTOMETRIC, -1)
    colour = _COLOURS.get(photometric, f"colour space {photometric}")
    packed = tags.get(_COMPRESSION, _UNCOMPRESSED)
    return f"{bits}-bit samples ({kind}; {colour}, {samples} a pixel; compression {packed})"


def _first_directory(data: bytes) -> tuple[dict[int, int], bool]:
    """(single-valued tags, whether another page follows)."""
    order = "<" if data[:2] == b"II" else ">"
    layout = _Layout(order, "H", 12, 8, "I")
    at = 4
    if 43 in data[2:4]:
        layout = _Layout(order, "Q", 20, 12, "Q")
        at = 8
    (start,) = struct.unpack_from(order + layout.offset, data, at)
    (num_entries,) = struct.unpack_from(order + layout.count, data, start)
    if num_entries > _MAX_ENTRIES:
        unreadable(f"TIFF directory of {num_entries} entries")
    first = start + struct.calcsize(order + layout.count)
    tags: dict[int, int] = {}
    for i in range(num_entries):
        _read_entry(data, first + i * layout.entry_bytes, layout, tags)
    after = first + num_entries * layout.entry_bytes
    next_page = data[after : after + struct.calcsize(order + layout.offset)]
    return tags, any(next_page)


def _read_entry(data: bytes, at: int, layout: _Layout, tags: dict[int, int]) -> None:
    tag, kind = struct.unpack_from(layout.order + "HH", data, at)
    if kind in _INLINE and tag not in tags:
        (count,) = struct.unpack_from(layout.order + layout.offset, data, at + 4)
        form = layout.order + _INLINE[kind]
        room = layout.entry_bytes - layout.value_at
        where = at + layout.value_at
        if count * struct.calcsize(form) > room:
            (where,) = struct.unpack_from(layout.order + layout.offset, data, where)
        (tags[tag],) = struct.unpack_from(form, data, where)
