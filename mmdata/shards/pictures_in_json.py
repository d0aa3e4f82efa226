"""Cut the pictures out of a JSON document before it is decoded.

98 bytes of 100 of a document are base64, which a JSON decoder looks at one by one and copies. So
each text behind an `image_base64` key is cut out from quote to quote, and a short mark is left in
its place: what is left are a few kilobytes, and the pictures go to the base64 decoder as they lie
there. A text with an escape in it stays where it is, and a document that has strings like our marks
is not cut at all, so that decoding what is left and asking `CutJson.picture` gives what a JSON
decoder gives of the whole. The price: a byte in a picture that no JSON may have condemns the
picture, when it is decoded, and no longer the document.
"""

import re
from typing import NamedTuple

_KEY = b'"image_base64"'
_OPENING = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*"')
#: Nearly all are written like this, and comparing is faster than matching.
_USUAL_OPENING = _KEY + b':"'
#: What a mark begins with: JSON allows the DEL character, and no text begins with it.
_MARK = "\x7f"
_MARK_BYTES, _ESCAPED_MARK = _MARK.encode(), b"\\u007"


class CutJson(NamedTuple):
    """A document whose pictures stand apart.

    Attributes:
        rest: the JSON with a mark in place of each text that was cut out.
        pictures: these texts in their order, as they lie in the document.
    """

    rest: bytes
    pictures: list[memoryview]

    def picture(self, text: str) -> memoryview:
        """The base64 of a picture.

        Args:
            text: what `rest` has as its `image_base64`, decoded.
        """
        if self.pictures and text.startswith(_MARK):
            return self.pictures[int(text[1:])]
        return memoryview(text.encode())


def cut_pictures(raw: bytes) -> CutJson:
    """Cut every text behind an `image_base64` key out of a JSON document.

    A key is found by its bytes: inside of a JSON string its quotes would be escaped.
    """
    view = memoryview(raw)
    kept: list[bytes | memoryview] = []
    pictures: list[memoryview] = []
    done = 0
    found = raw.find(_KEY)
    while found >= 0:
        start = found + len(_USUAL_OPENING)
        if not raw.startswith(_USUAL_OPENING, found):
            opening = _OPENING.match(raw, found + len(_KEY))
            start = opening.end() if opening else -1
        end = raw.find(b'"', start) if start >= 0 else -1
        if end >= 0 and raw.find(b"\\", start, end) < 0:
            kept += (view[done:start], b"\x7f%d" % len(pictures))
            pictures.append(view[start:end])
            done = found = end
        else:
            found += len(_KEY)
        found = raw.find(_KEY, found)
    kept.append(view[done:])
    rest = b"".join(kept)
    if rest.count(_MARK_BYTES) != len(pictures) or (b"\\" in rest and _ESCAPED_MARK in rest):
        return CutJson(raw, [])  # it may have strings like our marks
    return CutJson(rest, pictures)
