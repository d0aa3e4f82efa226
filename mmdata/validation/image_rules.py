"""The rules of base64 and of the images in it: what is there, whole, and what it claims to be.

Readers are lenient in ways that hide damage: Python's b64decode drops foreign characters, Pillow's
verify() reads only a header, and a JPEG that an early end marker closes decodes everywhere. So
base64 is strict here, the sha256 is computed wherever one is recorded, and at level `full` images
are decoded by the same code that lets them into a shard.
"""

import binascii
import hashlib
import re
from collections import Counter
from collections.abc import Iterator

import pybase64

from mmdata.images import ImagePolicy, ImageRejected, verify_image
from mmdata.images.facts import ImageFacts
from mmdata.validation.documents import Parsed, Problem
from mmdata.wording import plural
from schemas.document import ShardImage

#: What is in a shard is decoded whatever its size; only absurd headers are refused.
SHARD_POLICY = ImagePolicy(verify="decode", max_pixels=1_000_000_000, max_bytes=2**31)
_SHARD_FORMATS = frozenset(("jpeg", "png", "webp"))
_BYTES_LITERAL = re.compile(rb"b(\\?['\"]).*\1", re.DOTALL)
#: Fewer images, or images of fewer documents, may well be one picture.
_FEWEST_IMAGES, _FEWEST_DOCUMENTS = 8, 5
_FOREIGN = re.compile(rb"[^A-Za-z0-9+/=]")


class NotBase64(Exception):
    """A payload that strict base64 refuses: `code` of the rule, `expected` and `got`."""

    def __init__(self, code: str, expected: str, got: str) -> None:
        super().__init__(code, expected, got)
        self.code = code
        self.expected = expected
        self.got = got


def decode_base64(payload: bytes | memoryview) -> bytes:
    """The bytes behind strict base64: standard alphabet, padded, no line breaks, no stray bits.

    Raises:
        NotBase64: it is Python's text of bytes (B64001), or not strict (B64002).
    """
    try:
        data = pybase64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise _why_not(bytes(payload)) from None
    tail = bytes(payload[-4:])
    if tail.endswith(b"=") and pybase64.b64encode(data[-(len(data) % 3) :]) != tail:
        raise NotBase64("B64002", "zero bits behind the last byte", f"ends in {tail!r}")
    return data


def _why_not(payload: bytes) -> NotBase64:
    """Name what is wrong with base64 that does not decode."""
    if _BYTES_LITERAL.fullmatch(payload):
        got = "b'...', the text of Python bytes (str() instead of .decode())"
        return NotBase64("B64001", "base64 alone", got)
    if payload.startswith(b"data:"):
        return NotBase64("B64002", "base64 alone", f"a data URL, {payload[:24]!r}...")
    foreign = _FOREIGN.search(payload)
    if foreign:
        kinds = {b"\\": "an escape", b"\n": "a line break", b" ": "a space"}
        kinds |= {b"-": "the URL alphabet", b"_": "the URL alphabet"}
        kind = kinds.get(foreign[0], "a foreign character")
        got = f"{kind}, {foreign[0]!r} at {foreign.start()}"
        return NotBase64("B64002", "the standard alphabet", got)
    if len(payload) % 4:
        got = f"{len(payload)} characters (padding missing?)"
        return NotBase64("B64002", "a multiple of 4 characters", got)
    return NotBase64("B64002", "padding at the end only", f"ends in {payload[-8:]!r}")


def check_images(
    parsed: Parsed, contents: list[bytes | None], *, decode: bool
) -> Iterator[tuple[str, Problem]]:
    """Every problem of a document's images, with the code of its rule.

    Args:
        parsed: the document.
        contents: is extended by the bytes of each image, None where there are none.
        decode: decode the images (level full).
    """
    for number, payload in enumerate(parsed.payloads):
        path = f"$.image_info[{number}]"
        contents.append(None)
        if payload is None:
            continue
        try:
            data = decode_base64(payload)
        except NotBase64 as error:
            yield error.code, (f"{path}.image_base64", error.expected, error.got)
            continue
        contents[-1] = data
        image = parsed.document.image_info[number]
        yield from check_image(image, data, path, ours=parsed.ours, decode=decode)


def check_image(
    image: ShardImage, data: bytes, path: str, *, ours: bool, decode: bool
) -> Iterator[tuple[str, Problem]]:
    """The rules of one image whose bytes are there."""
    for problem in recorded_sha256(image, data, path):
        yield "IMG001", problem
    if not decode:
        return
    try:
        facts = verify_image(data, SHARD_POLICY)
    except ImageRejected as error:
        got = f"{error.reason}: {error.detail}"
        yield "IMG002", (f"{path}.image_base64", "an image that decodes completely", got)
        return
    for problem in recorded_facts(image, facts, path):
        yield "IMG003", problem
    for problem in fit_for_shard(facts, path, ours=ours):
        yield "IMG004", problem


def recorded_sha256(image: ShardImage, data: bytes, path: str) -> Iterator[Problem]:
    """IMG001, where one is recorded."""
    if isinstance(image.sha256, str):
        digest = hashlib.sha256(data).hexdigest()
        if digest != image.sha256:
            yield f"{path}.sha256", image.sha256, digest


class PictureCounts:
    """How often each picture stands in the documents of one shard."""

    def __init__(self) -> None:
        self._documents: Counter[str] = Counter()
        self._images: Counter[str] = Counter()

    def add(self, parsed: Parsed, contents: list[bytes | None]) -> None:
        """Count the images of a document."""
        digests = []
        for image, data in zip(parsed.document.image_info, contents, strict=True):
            if data is not None:
                known = image.sha256
                digests.append(
                    known if isinstance(known, str) else hashlib.sha256(data).hexdigest()
                )
        self._images.update(digests)
        self._documents.update(set(digests))

    def one_for_most(self) -> tuple[str, str] | None:
        """IMG005 as (expected, got): a placeholder picture in place of the real ones."""
        total = self._images.total()
        if total < _FEWEST_IMAGES:
            return None
        digest, times = self._images.most_common(1)[0]
        documents = self._documents[digest]
        if times * 2 <= total or documents < _FEWEST_DOCUMENTS:
            return None
        images, places = plural(total, "image"), plural(documents, "document")
        got = f"{times:,} of {images}, in {places}, are {digest[:12]}..."
        return "different pictures", got


def recorded_facts(image: ShardImage, facts: ImageFacts, path: str) -> Iterator[Problem]:
    """IMG003, where they are recorded."""
    for name in ("width", "height", "format"):
        claimed, found = getattr(image, name), getattr(facts, name)
        if isinstance(claimed, int | str) and claimed != found:
            yield f"{path}.{name}", f"{found!r}, from the image itself", f"{claimed!r}"


def fit_for_shard(facts: ImageFacts, path: str, *, ours: bool) -> Iterator[Problem]:
    """IMG004: ours holds JPEG, PNG and WebP that all readers show alike."""
    if not ours:
        return
    if facts.format not in _SHARD_FORMATS:
        yield f"{path}.format", "jpeg, png or webp", facts.format
    elif facts.needs_reencode:
        yield f"{path}.image_base64", "8-bit RGB or gray, upright, sRGB", facts.needs_reencode
