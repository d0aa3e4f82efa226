"""Pixels of any kind to the one kind that goes into shards: 8-bit sRGB or gray, upright, opaque.

Every step lets go of its input: at 32 Mpx one copy is 128 MB, and a worker has 600.
"""

from io import BytesIO

import numpy as np
from PIL import Image

from mmdata.images.facts import Format, Header, unreadable
from mmdata.images.icc import DeepConversion, deep_conversion, to_srgb
from mmdata.images.policy import DEFAULT_QUALITY, ImagePolicy
from mmdata.images.reduced import Box, Size
from mmdata.images.resize import MAX_JPEG_SIDE, MAX_WEBP_SIDE, shrink
from mmdata.images.window import apply_window, choose_window
from schemas.document import Window

_ROWS = 256  # rows of 16-bit samples at a time
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WHITE = 65_535
_ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa", "RGBX")


def windowed(
    image: Image.Image, header: Header, policy: ImagePolicy
) -> tuple[Image.Image, Window | None]:
    """Gray of more than 8 bits as 8, by the policy's window; others, and without one, as it came.

    Raises `ImageRejected` (`unreadable`) where no sample is a finite number.
    """
    deep = image.mode.startswith("I;16") or image.mode in ("I", "F")
    if policy.window == "full" or not deep:
        return image, None
    samples = np.asarray(image)
    if header.unsigned:
        samples = samples.view(np.uint32)
    window = choose_window(samples, policy.window)
    gray = apply_window(samples, window, inverted=header.white_is_zero)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        gray[samples == clear] = 255
    return Image.fromarray(gray), window


def normalise(image: Image.Image, header: Header, size: Size | None, box: Box) -> Image.Image:
    """`image` as 8-bit RGB or L: alpha on white, profile to sRGB, orientation baked in.

    With `size` (as stored, before the rotation) the `box` of it that is picture is resized behind
    the alpha, which must not bleed into its surroundings, and before the costly steps.

    16-bit gray is scaled linearly (v / 257, rounded), or goes through its profile whole. Carries no
    metadata. Raises `ImageRejected` (`unreadable`) for samples without a defined range (signed and
    32-bit integers, floats).
    """
    icc = header.icc
    if header.format == "tiff":
        icc = image.info.get("icc_profile")
    if image.mode.startswith("I;16"):
        convert = (
            deep_conversion(None if header.linear else icc, 1) if header.linear or icc else None
        )
        icc = icc if convert is None else None
        image = _scale_16_bit(image, convert, header)
    image = _eight_bit(image, header)
    image = shrink(_opaque(image), size, box)
    if icc and image.mode in ("L", "RGB", "CMYK"):
        image = to_srgb(image, icc)
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    if header.orientation != 1:
        image = image.transpose(_TRANSPOSE[header.orientation])
    image.info = {}  # else Pillow writes profile, comment and transparency into the new file
    return image


def _eight_bit(image: Image.Image, header: Header) -> Image.Image:
    if image.mode == "1" and "transparency" not in image.info:
        return image.convert("L")
    if image.mode in ("I", "F"):
        form = header.form or "32-bit samples"
        unreadable(
            f"{header.format.upper()} of {form}, whose range is not defined: --window auto scales "
            "them by their own"
        )
    return image


def _scale_16_bit(
    image: Image.Image, convert: DeepConversion | None, header: Header
) -> Image.Image:
    samples = np.asarray(image)
    gray = np.empty(samples.shape, np.uint8)
    clear = image.info.get("transparency")
    for top in range(0, samples.shape[0], _ROWS):
        rows = samples[top : top + _ROWS].astype(np.uint32)
        if header.white < _WHITE:
            rows = np.minimum(rows, header.white) * _WHITE // header.white
        if header.white_is_zero:
            rows = _WHITE - rows
        if convert is None:
            gray[top : top + _ROWS] = (rows + 128) // 257
        else:
            whole = rows.astype(np.uint16).reshape(-1, 1)
            gray[top : top + _ROWS] = convert(whole).reshape(rows.shape)
        if isinstance(clear, int):
            gray[top : top + _ROWS][rows == clear] = 255
    return Image.fromarray(gray)


def _opaque(image: Image.Image) -> Image.Image:
    """Palette and transparency resolved, on white; gray stays gray."""
    clear = "transparency" in image.info
    if image.mode == "P":
        image = image.convert("RGBA" if clear else "RGB")
    elif image.mode in ("1", "L") and clear:
        image = image.convert("LA")
    elif image.mode == "RGB" and clear:
        image = image.convert("RGBA")
    if image.mode not in _ALPHA_MODES:
        return image
    if image.mode == "RGBX":
        return image.convert("RGB")
    if image.mode not in ("RGBA", "LA"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    alpha = image.getchannel("A")
    gray = image.mode == "LA"
    white = Image.new("L" if gray else "RGB", image.size, "white")
    white.paste(image.getchannel("L") if gray else image, mask=alpha)
    return white


def encode(image: Image.Image, header: Header, policy: ImagePolicy) -> tuple[bytes, Format]:
    """The file for a shard: PNG, JPEG or WebP, as the policy says.

    What is too large for WebP (16,383 px a side) is encoded as if nothing was asked for, what is
    too large for JPEG (65,500) as PNG.

    JPEG chroma is subsampled 4:2:0, as in nearly every source that gets here, unless the source
    had it in full.
    """
    out = BytesIO()
    if policy.image_format == "webp" and max(image.size) <= MAX_WEBP_SIDE:
        image.save(out, "WEBP", quality=policy.quality or DEFAULT_QUALITY["webp"], method=4)
        return out.getvalue(), "webp"
    lossless = header.lossless and policy.image_format != "jpeg"
    if lossless or max(image.size) > MAX_JPEG_SIDE:
        image.save(out, "PNG", compress_level=4)  # a third less time than 6, 1% more bytes
        return out.getvalue(), "png"
    subsampling = "4:4:4" if header.full_chroma else "4:2:0"
    quality = policy.quality or DEFAULT_QUALITY["jpeg"]
    image.save(out, "JPEG", quality=quality, subsampling=subsampling)
    return out.getvalue(), "jpeg"
