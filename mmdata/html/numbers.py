"""Numbers for people: thousands separators, units, no more digits than mean something."""

import math
from collections.abc import Callable

from mmdata.wording import plural as plural

Format = Callable[[float], str]

DASH = "\u2013"  # where there is no number
TIMES = "\u00d7"

_BYTES = ("B", "kB", "MB", "GB", "TB", "PB")
_LARGE = ("", "k", "M", "G")


def count(value: float) -> str:
    """1,234."""
    return f"{value:,.0f}"


def compact(value: float) -> str:
    """1.2k: for axes."""
    return _scaled(value, 1000.0, _LARGE, "")


def num_bytes(value: float) -> str:
    """12.3 kB; of 1,000, as disks and networks are sold."""
    return _scaled(value, 1000.0, _BYTES, "\u00a0")


def pixels(value: float) -> str:
    """1,024 px."""
    return f"{value:,.0f}\u00a0px"


def cosine(value: float) -> str:
    """0.245, with a real minus."""
    return f"{value:.3f}".replace("-", "\u2212")


def short_cosine(value: float) -> str:
    """0.24: for axes and cells."""
    return f"{value:.2f}".replace("-", "\u2212")


def decimal(value: float) -> str:
    """3.4."""
    return f"{value:,.1f}"


def share(part: float, whole: float) -> str:
    """12.3%; never 0% of something or 100% of not all."""
    if not whole:
        return DASH
    ratio = part / whole
    if 0 < ratio < 0.001:
        return "<0.1%"
    if 0.999 < ratio < 1:
        return ">99.9%"
    return f"{ratio:.1%}" if 0 < ratio < 1 else f"{ratio:.0%}"


def _scaled(value: float, base: float, units: tuple[str, ...], gap: str) -> str:
    size, unit = abs(value), 0
    while size >= 0.9995 * base and unit + 1 < len(units):
        size, unit = size / base, unit + 1
    digits = 0 if unit == 0 or size >= 99.95 else 1
    text = f"{math.copysign(size, value):.{digits}f}"
    if digits:
        text = text.removesuffix(".0")
    return f"{text}{gap}{units[unit]}".rstrip()
