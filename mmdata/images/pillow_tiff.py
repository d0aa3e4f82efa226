"""Forms of TIFF that Pillow reads wrongly or not at all, put right around its own reading.

* Gray and alpha of 16 bits are handed over as their four bytes, in the channels of RGBA.
* Unsigned 32-bit integers, and inverted 16-bit gray, with the high byte first are known.
* Samples that libtiff unpacked stand in this machine's byte order; Pillow takes deep gray of
  files with the high byte first for the other.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image, TiffImagePlugin

_INTEGERS = (1,)
_EXTRAS: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (2,))
#: (byte order, photometric, sample format, fill order, bits, extra samples): (mode, raw mode).
_MORE_FORMS: dict[Any, tuple[str, str]] = {
    **{
        (order, photometric, _INTEGERS, 1, (16, 16), extra): ("RGBA", "RGBA")
        for order in (b"II", b"MM")
        for photometric in (0, 1)
        for extra in _EXTRAS
    },
    (b"MM", 1, _INTEGERS, 1, (32,), ()): ("I", "I;32B"),
    (b"MM", 0, _INTEGERS, 1, (16,), ()): ("I;16B", "I;16B"),
}
_NATIVE = {"I;32BS": "I;32S", "I;32B": "I;32N", "F;32BF": "F;32F", "I;16BS": "I;16S"}


@contextmanager
def more_forms() -> Iterator[None]:
    """Let Pillow's table know the forms above while a file is opened."""
    kept = dict(TiffImagePlugin.OPEN_INFO)
    TiffImagePlugin.OPEN_INFO.update({k: v for k, v in _MORE_FORMS.items() if k not in kept})
    try:
        yield
    finally:
        TiffImagePlugin.OPEN_INFO.clear()
        TiffImagePlugin.OPEN_INFO.update(kept)


def in_native_order(image: Image.Image) -> None:
    """Have an opened file unpacked in the byte order that it will stand in."""
    if isinstance(image, TiffImagePlugin.TiffImageFile) and sys.byteorder == "little":
        image.tile = [
            tile._replace(args=(_NATIVE.get(tile.args[0], tile.args[0]), *tile.args[1:]))
            if tile.codec_name == "libtiff" and isinstance(tile.args, tuple)
            else tile
            for tile in image.tile
        ]
