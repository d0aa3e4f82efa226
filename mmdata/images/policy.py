"""What an image must be like to go into a shard, as a plain dataclass.

Only the standard library is imported here, so that the configuration of a command (and so
`mmdata --help`) can name this class without paying for numpy, Pillow or simplejpeg.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Verify = Literal["header", "decode", "full"]
JpegWarnings = Literal["keep", "drop"]
ResizeMode = Literal["longest", "shortest"]
ImageFormat = Literal["keep", "jpeg", "webp"]
#: Of what is encoded, where no quality is asked for.
DEFAULT_QUALITY = {"jpeg": 95, "webp": 90}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePolicy:
    """Limits and how closely to look; the defaults are those of the converters.

    Raises `ValueError`, naming the field, for a value that makes no sense.
    """

    verify: Verify = "decode"
    """`header` reads headers only and finds files that end early, `decode` decodes far enough to
    find truncation and corruption, `full` decodes JPEGs at full scale too."""

    max_pixels: int = 32_000_000
    """Width x height, px; checked from the header before anything is decoded."""

    max_bytes: int = 64 * 2**20
    """Size of the encoded file, bytes; also of what a re-encoding makes of it."""

    min_side: int = 0
    """Shortest side allowed, px."""

    min_bytes: int = 0
    """Smallest encoded file allowed, bytes, as it came."""

    max_aspect: float = 0.0
    """Largest long side / short side allowed; 0 is no limit."""

    jpeg_warnings: JpegWarnings = "keep"
    """What happens to a complete JPEG with extraneous bytes before a marker."""

    max_side: int | None = None
    """Images whose side is longer are made smaller, px; None is no limit."""

    resize_mode: ResizeMode = "longest"
    """Which side `max_side` is about."""

    image_format: ImageFormat = "keep"
    """`keep` leaves what is lossless lossless (PNG) and encodes the rest as JPEG; `jpeg` and
    `webp` also turn images of another format into that one."""

    quality: int | None = None
    """Quality, 1 to 100, of encoded JPEGs and WebPs; None is 95 for JPEG and 90 for WebP."""

    strip: bool = False
    """Cut out of what passes through all that is not the picture: EXIF, comments, thumbnails."""

    window: str = "full"
    """Gray samples of more than 8 bits: `full` scales 16 bits by their whole range and refuses what
    has none (32-bit integers, floats), `auto` by the image's own percentiles, `LEVEL,WIDTH` so."""

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_numbers()

    def _check_choices(self) -> None:
        if self.verify not in get_args(Verify):
            raise ValueError(f"verify must be header, decode or full, got {self.verify!r}")
        if self.jpeg_warnings not in get_args(JpegWarnings):
            raise ValueError(f"jpeg_warnings must be keep or drop, got {self.jpeg_warnings!r}")
        if self.resize_mode not in get_args(ResizeMode):
            raise ValueError(f"resize_mode must be longest or shortest, got {self.resize_mode!r}")
        if self.image_format not in get_args(ImageFormat):
            raise ValueError(f"image_format must be keep, jpeg or webp, got {self.image_format!r}")

    def _check_numbers(self) -> None:
        if self.max_pixels < 1 or self.max_bytes < 1:
            raise ValueError("max_pixels and max_bytes must be at least 1")
        if self.min_side < 0 or self.min_bytes < 0:
            raise ValueError("min_side and min_bytes must not be negative")
        if self.max_aspect != 0 and not self.max_aspect >= 1:
            raise ValueError(f"max_aspect must be 0 (no limit) or >= 1, got {self.max_aspect}")
        if self.max_side is not None and self.max_side < 1:
            raise ValueError(f"max_side must be at least 1, got {self.max_side}")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be 1 to 100, got {self.quality}")
