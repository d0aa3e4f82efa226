"""Samples of more than 8 bits scaled to 8 by a window, as viewers of medical images do.

A scanner fills a part of its range: scaled by the whole of it (v / 257) an MRI slice of 12 bits is
nearly black, and cut to 8 bits it is nearly white. `auto` takes the window from the image itself,
between its 0.5th and 99.5th percentile, so that a few hot pixels do not decide; an image that is
flat between them is scaled from its least to its greatest sample. Costs about 15 ms a megapixel.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.images.facts import unreadable
from schemas.document import Window

LOW_PERCENT, HIGH_PERCENT = 0.5, 99.5
_ROWS = 256  # rows at a time: a float copy of 32 Mpx would be 256 MB


def choose_window(samples: NDArray[Any], window: str) -> Window:
    """The window of an image.

    Args:
        samples: (height, width), integers or floats.
        window: `auto` or `LEVEL,WIDTH` (see `parse_window`).

    Raises:
        ImageRejected: `unreadable`: no sample is a finite number.
    """
    if window != "auto":
        level, width = parse_window(window)
        return Window(low=level - width / 2, high=level + width / 2, by="given")
    flat = samples.ravel()
    if flat.dtype.kind == "f":
        flat = flat[np.isfinite(flat)]
        if not flat.size:
            unreadable("no sample is a finite number")
    low, high = (float(value) for value in np.percentile(flat, (LOW_PERCENT, HIGH_PERCENT)))
    if not low < high:
        low, high = float(flat.min()), float(flat.max())
    return Window(low=low, high=high, by="auto")


def apply_window(
    samples: NDArray[Any], window: Window, *, inverted: bool = False
) -> NDArray[np.uint8]:
    """Samples as 8-bit gray; (height, width) in and out.

    Args:
        samples: integers or floats; what is no number becomes black.
        window: to scale by; of no width where the image is flat, which then is mid-gray.
        inverted: zero is white, as in some TIFFs.
    """
    gray = np.empty(samples.shape, np.uint8)
    width = window.high - window.low
    for top in range(0, samples.shape[0], _ROWS):
        rows = samples[top : top + _ROWS].astype(np.float64)
        if width > 0:
            rows = np.clip((rows - window.low) * 255.0 / width, 0.0, 255.0)
        else:
            rows = np.full(rows.shape, 127.5)
        gray[top : top + _ROWS] = np.nan_to_num(rows, nan=0.0) + 0.5
    if inverted:
        np.subtract(255, gray, out=gray)
    return gray


def parse_window(text: str) -> tuple[float, float]:
    """(level, width) of a `LEVEL,WIDTH`: the sample that becomes mid-gray, and from black to white.

    Raises:
        ValueError: it is something else.
    """
    level, _, width = text.partition(",")
    values = float(level), float(width)
    if not np.isfinite(values).all() or values[1] <= 0:
        raise ValueError(f"{text}: expected numbers, the second above 0")
    return values
