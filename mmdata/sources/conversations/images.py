"""References to images in records: names, URLs, `data:` URIs, objects with bytes or a path."""

import msgspec

from mmdata.sources.base import RecordDropped, SourceImage
from mmdata.sources.embedded import base64_of_uri, embedded_name, is_data_uri
from schemas.conversation import ImageObject, ImageReference, Images
from schemas.reasons import DocumentDrop

_OBJECT = msgspec.json.Decoder(ImageObject)
_OBJECT_FIELDS = frozenset(ImageObject.__struct_fields__)


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

    Raises:
        RecordDropped: the reference is an object of other types than an image's.
    """
    if reference is None or reference == "":
        return SourceImage("", {}, f"{path}: expected an image, got nothing")
    if isinstance(reference, str):
        return _from_text(reference, {}, index, path)
    return _from_object(reference, index, path)


def _from_text(text: str, fields: dict[str, msgspec.Raw], index: int, path: str) -> SourceImage:
    if is_data_uri(text):
        payload = base64_of_uri(text)
        if payload is None:
            return SourceImage("", fields, f"{path}: expected base64 in the data: URI")
        return _embedded(payload, "", fields, index)
    scheme = text[: text.find("://")] if "://" in text[:12] else ""
    if scheme and scheme.lower() != "file":
        fields = fields | {"raw_url": msgspec.Raw(msgspec.json.encode(text))}
    return SourceImage(text, fields)


def _from_object(reference: dict[str, msgspec.Raw], index: int, path: str) -> SourceImage:
    try:
        found = _OBJECT.decode(msgspec.json.encode(reference))
    except msgspec.DecodeError as error:
        text = str(error).replace("`", "").replace("$", path, 1)
        raise RecordDropped(DocumentDrop.BAD_SCHEMA, text) from None
    fields = {name: raw for name, raw in reference.items() if name not in _OBJECT_FIELDS}
    name = found.path or found.image_name or found.file_name or ""
    payload = found.bytes or found.base64_image or found.image_base64
    if payload:
        if is_data_uri(payload):
            payload = base64_of_uri(payload) or ""
        return _embedded(payload, name, fields, index)
    if found.url:
        return _from_text(found.url, fields, index, f"{path}.url")
    if not name:
        return SourceImage("", fields, f"{path}: expected url, path or bytes, got none of them")
    return _from_text(name, fields, index, path)


def _embedded(payload: str, name: str, fields: dict[str, msgspec.Raw], index: int) -> SourceImage:
    if not payload:
        return SourceImage(name, fields, "expected base64, got none")
    return SourceImage(name or embedded_name(payload, index), fields, embedded=payload)
