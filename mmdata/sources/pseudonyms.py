"""Keyed hashes in place of ids, file names and source paths.

A pseudonym is the first 128 bits of an HMAC-SHA256: the same name and key give the same one in
every run, and without the key it cannot be told whose it is. Of a record's own fields `id` and the
one that splits are made by are hashed, what the user lists is kept, and the others are left out,
since nobody can know what is in them. In its text the record's own id and the parts of its images'
names are replaced too (where they look like names: four characters or more, and one that words have
not), and that is counted. Other text stays as it is; `mmdata/images/strip.py` sees to the pictures.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import msgspec

from mmdata.images import ImageRejected
from mmdata.sources.base import SourceDocument, SourceImage
from mmdata.sources.keyed_hash import keyed_hash
from mmdata.sources.names import StoredImage
from schemas.reasons import DocumentNote

_EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic")
)
_SHORTEST_NAME = 4
_NOT_OF_WORDS = re.compile(r"[\d_./\\-]")
_KEPT_IMAGE_FIELDS = frozenset(("matched_text_index", "matched_sim"))


@dataclass(frozen=True, slots=True, repr=False)
class Pseudonyms:
    """Makes pseudonyms; its text form does not show the key.

    Attributes:
        key: secret bytes.
        fields: fields of a record that are hashed and kept, besides `id`.
        kept: fields of a record that are kept as they are.
    """

    key: bytes
    fields: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Pseudonyms(fields={self.fields}, kept={self.kept})"

    def of(self, name: str) -> str:
        """The pseudonym of an id or name."""
        return keyed_hash(self.key, name)

    def of_image(self, name: str) -> str:
        """The pseudonym of an image's name, with its ending where that is an image's."""
        ending = os.path.splitext(name)[1].lower()
        return self.of(name) + (ending if ending in _EXTENSIONS else "")

    def document(self, document: SourceDocument) -> SourceDocument:
        """A document that tells nothing of where it is from but through the key."""
        extras = {}
        for name, raw in document.extras.items():
            if name in self.kept:
                extras[name] = raw
            elif name == "id" or name in self.fields:
                extras[name] = msgspec.Raw(msgspec.json.encode(self._of_value(raw)))
        notes = [(note, "") for note, _ in document.notes]
        texts = self._texts(document)
        if texts != document.text_list:
            notes.append((DocumentNote.NAMES_IN_TEXT.value, ""))
        return replace(
            document,
            text_list=texts,
            images=[self._image(image) for image in document.images],
            extras=extras,
            notes=notes,
        )

    def _texts(self, document: SourceDocument) -> list[str]:
        """The sentences, with pseudonyms in place of the names that the record itself has."""
        names = {part for image in document.images for part in _parts(image.name)}
        if raw := document.extras.get("id"):
            value = msgspec.json.decode(raw)
            names.add(value if isinstance(value, str) else "")
        told = sorted((name for name in names if _is_name(name)), key=len, reverse=True)
        if not told:
            return document.text_list
        pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, told))})(?!\w)", re.IGNORECASE)
        return [pattern.sub(lambda match: self.of(match[0]), t) for t in document.text_list]

    def _of_value(self, raw: msgspec.Raw) -> str | None:
        value = msgspec.json.decode(raw)
        if value is None:
            return None
        return self.of(value if isinstance(value, str) else msgspec.json.encode(value).decode())

    def _image(self, image: SourceImage) -> SourceImage:
        fields = {name: raw for name, raw in image.fields.items() if name in _KEPT_IMAGE_FIELDS}
        name = self.of_image(image.name) if image.name else ""
        problem = "no name that can be used" if image.problem else ""
        return replace(image, name=name, fields=fields, problem=problem)

    def reader(
        self, document: SourceDocument, read: Callable[[str], StoredImage]
    ) -> Callable[[str], StoredImage]:
        """Reads a (public) document's images: by pseudonym, and telling no name when it fails.

        Args:
            document: the original one.
            read: by original name; raises ImageRejected.
        """
        originals = {self.of_image(image.name): image.name for image in document.images}

        def read_by_pseudonym(name: str) -> StoredImage:
            try:
                return read(originals[name])._replace(name=name)
            except ImageRejected as error:
                raise ImageRejected(error.reason, name) from None

        return read_by_pseudonym


def _parts(name: str) -> Iterator[str]:
    """A name, its folders, and its last part with and without its ending."""
    yield name
    for part in name.split("/"):
        yield part
        yield os.path.splitext(part)[0]


def _is_name(text: str) -> bool:
    """Whether a text can hardly be a word."""
    return len(text) >= _SHORTEST_NAME and _NOT_OF_WORDS.search(text) is not None
