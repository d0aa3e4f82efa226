"""Base64 as people write it, back to the bytes: the faults that leave no doubt what was meant.

`str()` of Python bytes (`b'…'`), `data:` URIs, line breaks and spaces, the URL alphabet, padding
that was left off, stray bits behind the last byte. What lost characters is another thing: it
decodes to an image that is cut, and the image's own check finds that.
"""

import binascii
import re

import pybase64

from mmdata.images.facts import ImageRejected
from mmdata.validation.image_rules import NotBase64, decode_base64
from schemas.reasons import ImageDrop

_LITERAL = re.compile(r"""b\\?(['"])(.*?)\\?\1""", re.DOTALL)
_DATA_URI = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
#: Also as the two characters that an escape of an escape leaves.
_BREAKS = re.compile(r"(?:\\[nrt]|\s)+")
_URL_ALPHABET = str.maketrans("-_", "+/")


def mend_base64(text: str) -> tuple[bytes, list[str]]:
    """The bytes that were meant, and what was mended, in words; nothing where it was strict.

    Raises:
        ImageRejected: `unreadable`: no base64, even so.
    """
    try:
        return decode_base64(text.encode()), []
    except (NotBase64, UnicodeEncodeError):
        return _mended(text)


def _mended(text: str) -> tuple[bytes, list[str]]:
    mends = []
    if literal := _LITERAL.fullmatch(text.strip()):
        text = literal[2]
        mends.append("b'…' taken off")
    if uri := _DATA_URI.match(text.lstrip()):
        text = text.lstrip()[uri.end() :]
        mends.append("data: URI taken off")
    without = _BREAKS.sub("", text)
    if without != text:
        mends.append("line breaks or spaces taken out")
    plain = without.translate(_URL_ALPHABET)
    if plain != without:
        mends.append("URL alphabet made the standard one")
    unpadded = plain.rstrip("=")
    padded = unpadded + "=" * (-len(unpadded) % 4)
    if padded != plain:
        mends.append("padding corrected")
    try:
        data = pybase64.b64decode(padded.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageRejected(ImageDrop.UNREADABLE, f"not base64: {_why(padded, error)}") from None
    return data, mends or ["stray bits behind the last byte taken off"]


def _why(text: str, error: Exception) -> str:
    if len(text.rstrip("=")) % 4 == 1:
        return f"it ends in the middle of a byte, after {len(text.rstrip('='))} characters"
    foreign = re.search(r"[^A-Za-z0-9+/=]", text)
    if foreign:
        return f"character {foreign[0]!r} at {foreign.start()}"
    return " ".join(str(error).split())
