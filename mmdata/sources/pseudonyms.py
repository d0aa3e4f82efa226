"""Keyed hashes in place of ids, file names and source paths.

A pseudonym is the first 128 bits of an HMAC-SHA256: the same name and key give the same one in
every run, and without the key it cannot be told whose it is. Of a record's own fields `id`, the one
that splits are made by and those that the user names are hashed, what the user lists is kept, and
the others are left out, since nobody can know what is in them. Wherever one of the record's ids or
a part of its images' names stands in what is left (texts, roles, kept fields), its pseudonym takes
its place (`told_names.py`). Other text stays as it is; `mmdata/images/strip.py` sees to the
pictures.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from mmdata.images import ImageRejected
from mmdata.sources.base import SourceDocument, SourceImage
from mmdata.sources.fields import text_of
from mmdata.sources.keyed_hash import keyed_hash
from mmdata.sources.names import StoredImage
from mmdata.sources.told_names import (
    NameFinder,
    ids_of,
    is_id_field,
    may_name_a_person,
    parts_of_name,
)
from schemas.reasons import DocumentNote

_EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic")
)
_KEPT_IMAGE_FIELDS = frozenset(("matched_text_index", "matched_sim"))
_LEFT_OUT = object()


@dataclass(frozen=True, slots=True, repr=False)
class Pseudonyms:
    """Makes pseudonyms; its text form does not show the key.

    Attributes:
        key: secret bytes.
        fields: fields of a record that are hashed and kept, besides `id`; `a.b` is field b of a.
        kept: fields of a record that are kept, but for names in them.
        named: those of `fields` that the user named as telling.
    """

    key: bytes
    fields: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    named: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Pseudonyms(fields={self.fields}, kept={self.kept})"

    def of(self, name: str) -> str:
        """The pseudonym of an id or name."""
        return keyed_hash(self.key, name)

    def of_image(self, name: str) -> str:
        """The pseudonym of an image's name, with its ending where that is an image's."""
        ending = os.path.splitext(name)[1].lower()
        return self.of(name) + (ending if ending in _EXTENSIONS else "")

    def of_record(self, document: SourceDocument, record: bytes) -> SourceDocument:
        """A document of a record as JSON; see `document`."""
        return self.document(document, msgspec.json.decode(record))

    def document(self, document: SourceDocument, record: Mapping[str, Any]) -> SourceDocument:
        """A document that tells nothing of where it is from but through the key.

        Args:
            document: of the record.
            record: all its fields, decoded: what they tell is what is looked for in the texts."""
        told = [*ids_of(record, (*self.fields, *self.named), self.kept)]
        for image in document.images:
            told += parts_of_name(image.name)
        finder = NameFinder(told, self.of)
        extras = {}
        for name, raw in document.extras.items():
            value = msgspec.json.decode(raw)
            public = self._public(name, value, finder)
            if public is not _LEFT_OUT:
                extras[name] = raw if public == value else msgspec.Raw(msgspec.json.encode(public))
        texts = [finder.hide(text) for text in document.text_list]
        roles = document.roles and [finder.hide(role) for role in document.roles]
        notes = [(note, "") for note, _ in document.notes]
        notes += [(note.value, "") for note in _remarks(document.text_list, texts, finder)]
        return replace(
            document,
            text_list=texts,
            images=[self._image(image) for image in document.images],
            extras=extras,
            notes=notes,
            roles=roles,
        )

    def _public(self, path: str, value: Any, finder: NameFinder) -> Any:
        """What is told of a field: all, its pseudonym, or what is told of the fields inside it."""
        if path in self.kept:
            return self._kept(path, value, finder)
        if path == "id" or path in self.fields:
            return self._of_value(value)
        inside = path + "."
        if isinstance(value, dict) and any(
            chosen.startswith(inside) for chosen in (*self.fields, *self.kept)
        ):
            below = {name: self._public(inside + name, v, finder) for name, v in value.items()}
            found = {name: v for name, v in below.items() if v is not _LEFT_OUT}
            return found or _LEFT_OUT
        return _LEFT_OUT

    def _kept(self, path: str, value: Any, finder: NameFinder) -> Any:
        """A value that is kept, without the names that are told in it."""
        if isinstance(value, str):
            return finder.hide(value)
        if isinstance(value, list):
            return [self._kept(path, item, finder) for item in value]
        if not isinstance(value, dict):
            return value
        found = {}
        for name, inner in value.items():
            below = f"{path}.{name}"
            if below not in self.kept and (below in self.fields or is_id_field(name)):
                found[finder.hide(name)] = self._of_value(inner)
            else:
                found[finder.hide(name)] = self._kept(below, inner, finder)
        return found

    def _of_value(self, value: Any) -> str | None:
        return None if value is None else self.of(text_of(value) or "")

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


def _remarks(before: list[str], after: list[str], finder: NameFinder) -> list[DocumentNote]:
    """What was done to the texts of a document, and what may be left to do."""
    notes = []
    if after != before:
        notes.append(DocumentNote.NAMES_IN_TEXT)
    if finder.leaves_in(before):
        notes.append(DocumentNote.ID_LEFT_IN_TEXT)
    if any(map(may_name_a_person, after)):
        notes.append(DocumentNote.MAYBE_A_PERSON)
    return notes
