"""Pseudonyms: the same for the same name and key, and nothing else stays that could tell."""

import msgspec
import pytest

from mmdata.images import ImageRejected
from mmdata.sources.base import SourceDocument, SourceImage
from mmdata.sources.names import StoredImage
from mmdata.sources.pseudonyms import Pseudonyms
from schemas.reasons import ImageDrop

NAMES = Pseudonyms(b"0123456789abcdef", fields=("patient",), kept=("language",))


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def document() -> SourceDocument:
    return SourceDocument(
        text_list=["See S_0413-t1.png of 002_S_0413; the brain.", "Brain."],
        images=[
            SourceImage("002_S_0413/S_0413-t1.png", {"raw_url": raw("http://clinic/x")}),
            SourceImage("brain/a.jpg", {}, problem="$.image[1]: 'Doe' is odd"),
        ],
        similarity=None,
        similarity_source="placeholder",
        alignment="given",
        extras={"id": raw("002_S_0413"), "patient": raw(17), "doctor": raw("Dr. Doe"),
                "language": raw("en")},
        matched=[0, 0],
        notes=[("no-tags", "detail with Doe")],
    )  # fmt: skip


def test_the_same_name_and_key_give_the_same_pseudonym() -> None:
    assert NAMES.of("a") == Pseudonyms(b"0123456789abcdef").of("a")
    assert NAMES.of("a") != NAMES.of("b")
    assert NAMES.of("a") != Pseudonyms(b"fedcba9876543210").of("a")
    assert len(NAMES.of("a")) == 32


def test_the_key_is_not_in_its_text_form() -> None:
    assert "0123456789abcdef" not in repr(NAMES) + str(NAMES)


def hidden(given: SourceDocument) -> SourceDocument:
    return NAMES.document(given, {k: msgspec.json.decode(v) for k, v in given.extras.items()})


def test_nothing_of_a_document_tells_where_it_is_from() -> None:
    public = hidden(document())
    told = repr(public) + "".join(bytes(r).decode() for r in public.extras.values())
    for name in ("0413", "S_0413", "clinic", "Doe", "17"):
        assert name not in told.replace(NAMES.of("002_S_0413"), "").replace(NAMES.of("17"), "")
    assert msgspec.json.decode(public.extras["id"]) == NAMES.of("002_S_0413")
    assert msgspec.json.decode(public.extras["patient"]) == NAMES.of("17")
    assert msgspec.json.decode(public.extras["language"]) == "en"
    assert public.images[0].name == NAMES.of("002_S_0413/S_0413-t1.png") + ".png"


def test_names_in_the_text_are_replaced_and_words_are_not() -> None:
    public = hidden(document())
    stem, patient = NAMES.of("S_0413-t1.png"), NAMES.of("002_S_0413")
    assert public.text_list == [f"See {stem} of {patient}; the brain.", "Brain."]
    assert public.notes == [("no-tags", ""), ("names-in-text", "")]


def test_images_are_read_by_their_own_name_and_refused_by_pseudonym() -> None:
    def read(name: str) -> StoredImage:
        if name.startswith("brain"):
            raise ImageRejected(ImageDrop.MISSING, f"{name}: no such file")
        return StoredImage(name.encode(), f"folder/{name}")

    public = hidden(document())
    by_pseudonym = NAMES.reader(document(), read)
    pseudonym = public.images[0].name
    assert by_pseudonym(pseudonym) == (b"002_S_0413/S_0413-t1.png", pseudonym, None)
    with pytest.raises(ImageRejected) as caught:
        by_pseudonym(public.images[1].name)
    assert "brain" not in str(caught.value)
    assert caught.value.__suppress_context__
