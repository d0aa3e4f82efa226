"""References to images in records: names, URLs, `data:` URIs, base64, objects of many kinds.

An object may hold the encoded file, a name or a URL under any of the keys below, or another object
that does, as the parts of messages do: `{"source": {"media_type": ..., "data": ...}}`,
`{"image_url": {"url": ...}}`. One that holds nothing that can be read is an image all the same: it
is dropped, and its keys are told.
"""

from typing import Any

import msgspec

from mmdata.sources.base import SourceImage
from mmdata.sources.embedded import base64_of_uri, embedded_name, is_bare_base64, is_data_uri
from mmdata.sources.names import split_ending
from schemas.conversation import ImageReference, Images

#: Keys of the encoded file as base64 or a `data:` URI.
PAYLOADS = ("bytes", "base64_image", "image_base64", "base64", "b64_json", "b64", "data")
#: Keys of another object, or of a text that says where the image is.
NESTED = ("image", "image_url", "source", "inline_data", "inlineData", "input_image", "img")
#: Keys of names below --image-root.
NAMES = (
    *("path", "image_path", "image_name", "file_name", "filename", "file_path", "filepath"),
    *("image_file", "file_uri", "fileUri", "src"),
)
#: Keys of URLs, `data:` URIs among them.
URLS = ("url", "uri")
_KNOWN = frozenset((*PAYLOADS, *NESTED, *NAMES, *URLS))
#: Keys that say what an object is, and nothing of the image.
_OF_THE_PART = frozenset(("type", "text", "index", "media_type", "mime_type", "mimeType"))
_SHOWN_KEYS = 8
_LONGEST_ENDING = 8


def listed(images: Images) -> list[ImageReference | None]:
    """The images of a record's field, which may be one, several or none."""
    if images is None:
        return []
    return images if isinstance(images, list) else [images]


def source_image(reference: ImageReference | None, index: int, path: str) -> SourceImage:
    """One image that a record refers to.

    Args:
        reference: as the record has it.
        index: of the image in its document.
        path: of the reference in the record, for messages.
    """
    if reference is None or (isinstance(reference, str) and not reference.strip()):
        return SourceImage("", {}, f"{path}: expected an image, got nothing")
    if isinstance(reference, str):
        return _from_text(reference, "", {}, index, path)
    return _from_object(reference, {}, index, path)


def keys_of(reference: dict[str, msgspec.Raw]) -> str:
    """The keys of an object that hold something, for a message."""
    names = [name[:40] for name, raw in reference.items() if bytes(raw) != b"null"]
    more = f" and {len(names) - _SHOWN_KEYS} more" if len(names) > _SHOWN_KEYS else ""
    return (", ".join(names[:_SHOWN_KEYS]) or "none") + more


def _from_text(
    text: str, name: str, fields: dict[str, msgspec.Raw], index: int, path: str
) -> SourceImage:
    """An image by a text; `name` is what it is called besides."""
    if is_data_uri(text):
        payload = base64_of_uri(text)
        if payload is None:
            return SourceImage(name, fields, f"{path}: expected base64 in the data: URI")
        return _embedded(payload, name, fields, index, path)
    if is_bare_base64(text):
        return _embedded(text, name, fields, index, path)
    scheme = text[: text.find("://")] if "://" in text[:12] else ""
    if scheme and scheme.lower() != "file":
        fields = fields | {"raw_url": msgspec.Raw(msgspec.json.encode(text))}
    return SourceImage(name or text, fields)


def _from_object(
    reference: dict[str, msgspec.Raw], above: dict[str, msgspec.Raw], index: int, path: str
) -> SourceImage:
    """An image by an object; `above` is what the objects around it say of it."""
    values = {name: msgspec.json.decode(reference[name]) for name in reference if name in _KNOWN}
    fields = above | {
        name: raw
        for name, raw in reference.items()
        if name not in _KNOWN and name not in _OF_THE_PART
    }
    name = _text(values, NAMES)
    if payload := _text(values, PAYLOADS):
        if is_data_uri(payload) or _is_name(payload):
            return _from_text(payload, name, fields, index, path)
        return _embedded(payload, name, fields, index, path)
    for key in (*NESTED, *PAYLOADS):
        if isinstance(values.get(key), dict):
            inner = msgspec.json.decode(reference[key], type=dict[str, msgspec.Raw])
            return _from_object(inner, fields, index, f"{path}.{key}")
    if text := _text(values, URLS) or _text(values, NESTED):
        return _from_text(text, name, fields, index, path)
    if not name:
        told = f"{path}: expected path, url, base64 or the like, got the keys {keys_of(reference)}"
        return SourceImage("", fields, told)
    return _from_text(name, "", fields, index, path)


def _text(values: dict[str, Any], keys: tuple[str, ...]) -> str:
    """The first text under some keys that is not blank; empty without one."""
    texts = (values.get(key) for key in keys)
    return next((text for text in texts if isinstance(text, str) and text.strip()), "")


def _is_name(text: str) -> bool:
    """Whether what stands where base64 is expected is a name or a URL."""
    return "://" in text[:12] or bool(split_ending(text[-_LONGEST_ENDING:])[1])


def _embedded(
    payload: str, name: str, fields: dict[str, msgspec.Raw], index: int, path: str
) -> SourceImage:
    if not payload.strip():
        return SourceImage(name, fields, f"{path}: expected base64, got none")
    return SourceImage(name or embedded_name(payload, index), fields, embedded=payload)
