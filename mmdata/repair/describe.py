"""Rows of the samples table of shards that others made: what is in them, nothing changed.

Pictures are looked at by their headers; what cannot be read leaves its columns empty and is
counted, since an index must name every sample that a reader will find.
"""

import hashlib
from functools import partial
from typing import Any

from mmdata.errors import BadInputError
from mmdata.images import ImagePolicy, ImageRejected, verify_image
from mmdata.shards.columns import text_columns
from mmdata.shards.reader import dots_hint, name_told_twice, refuse_damage, split_name
from mmdata.shards.structure import Member, walk
from mmdata.storage.files import Buffer
from mmdata.validation.documents import Parsed, Unreadable, parse_document
from mmdata.validation.image_rules import NotBase64, decode_base64
from mmdata.validation.samples_rules import margins
from mmdata.validation.tar_rules import IMAGE_EXTENSIONS, TEXT_EXTENSION, TarContents, runs_of
from schemas.manifest import Layout, Tally

#: Headers only: an index is no check (`mmdata validate` is).
_GLANCE = ImagePolicy(verify="header", max_pixels=2**40, max_bytes=2**40)
#: In place of a `matched_text_index` that is none.
_NO_SENTENCE = -1
Row = dict[str, Any]


def contents_of(path: str, data: Buffer) -> TarContents:
    """The members of a tar.

    Args:
        path: of the tar, for messages.
        data: all of it.

    Raises:
        BadInputError: it is damaged, so that readers would not see all of them, or they would not
            agree which members are a sample.
    """
    contents = TarContents(list(walk(data, partial(refuse_damage, path))))
    contents.names = [split_name(member.name) for member in contents.members]
    contents.keys = list(dict.fromkeys(key for key, _ in contents.names if key))
    named = [
        member for member, (key, _) in zip(contents.members, contents.names, strict=True) if key
    ]
    if len({split_name(member.name) for member in named}) < len(named):
        raise BadInputError(f"{path}: {name_told_twice(named)}")
    _refuse_apart(path, contents)
    return contents


def _refuse_apart(path: str, contents: TarContents) -> None:
    """Refuse samples whose members stand apart.

    Raises:
        BadInputError: there are such.
    """
    apart = {key: places for key, places in runs_of(contents).items() if len(places) > 1}
    if apart:
        key, places = next(iter(apart.items()))
        others = f", and so do those of {len(apart) - 1} other samples" if len(apart) > 1 else ""
        raise BadInputError(
            f"{path}: the members of {key} stand apart (bytes {places[0]} and {places[1]})"
            f"{others}: readers that go through a tar in order make several samples of one; mmdata "
            "repair puts them together"
        )


def layout_of(contents: TarContents) -> Layout:
    """The layout that the members' names say."""
    kinds = {extension for key, extension in contents.names if key}
    return "pairs" if kinds & (IMAGE_EXTENSIONS | {TEXT_EXTENSION}) else "interleaved"


def describe(path: str, data: Buffer, contents: TarContents, name: str) -> tuple[list[Row], Tally]:
    """A row for every sample, and their sums.

    Args:
        path: of the tar, for messages.
        data: the tar.
        contents: its members.
        name: of the tar, as the rows' source.

    Raises:
        BadInputError: a sample has no document, or no picture.
    """
    layout = layout_of(contents)
    samples: dict[str, dict[str, Member]] = {key: {} for key in contents.keys}
    for member, (key, extension) in zip(contents.members, contents.names, strict=True):
        if key:
            samples[key][extension] = member
    rows: list[Row] = []
    tally = Tally(documents_dropped={}, images_dropped={}, notes={})
    for number, (key, members) in enumerate(samples.items()):
        wanted = IMAGE_EXTENSIONS if layout == "pairs" else {"json"}
        kind = next((kind for kind in members if kind in wanted), None)
        if kind is None:
            what = "picture" if layout == "pairs" else "document"
            raise BadInputError(
                f"{path}: {key}: expected a {what}, got only {', '.join(sorted(members))}"
                f"{dots_hint(members)}; mmdata repair leaves it out, and says so"
            )
        member = members[kind]
        raw = data[member.offset : member.offset + member.size]
        row: Row = {"key": key, "offset": member.offset, "size": member.size}
        row |= {"sha256": hashlib.sha256(raw).hexdigest(), "source_file": name}
        row |= {"source_member": member.name, "source_record": number}
        if layout == "pairs":
            text = members.get(TEXT_EXTENSION)
            caption = data[text.offset : text.offset + text.size] if text else b""
            row |= _pair(raw, caption)
        else:
            row |= _document(raw)
        if not all(row["format"]) or not row["sentences"]:
            tally.notes["unreadable"] = tally.notes.get("unreadable", 0) + 1
        rows.append(row)
        _count(tally, row)
    return rows, tally


def _count(tally: Tally, row: Row) -> None:
    tally.records += 1
    tally.documents += 1
    tally.images += len(row["matched"])
    tally.images_listed += len(row["matched"])
    tally.sentences += row["sentences"]
    tally.image_bytes += sum(row["image_bytes"])


def _pair(picture: bytes, caption: bytes) -> Row:
    row = text_columns([caption])
    row |= {"matched": [0], "similarity": [None], "margin": [None]}
    return row | _images([picture])


def _document(raw: bytes) -> Row:
    try:
        parsed = parse_document(raw)
    except Unreadable:
        row = text_columns([]) | {"matched": [], "similarity": [], "margin": []}
        return row | _images([])
    document = parsed.document
    row = text_columns([text.encode("utf-8", "surrogatepass") for text in document.text_list])
    indices = [image.matched_text_index for image in document.image_info]
    sims = [image.matched_sim for image in document.image_info]
    row["matched"] = [index if isinstance(index, int) else _NO_SENTENCE for index in indices]
    row["similarity"] = [sim if isinstance(sim, float) else None for sim in sims]
    row["margin"] = _margins(parsed)
    return row | _images([_payload(parsed, number) for number in range(len(indices))])


def _margins(parsed: Parsed) -> list[float | None]:
    """Margins of a document whose matrix fits; None for each image of another."""
    document = parsed.document
    matrix, sentences = document.similarity_matrix, len(document.text_list)
    indices = [image.matched_text_index for image in document.image_info]
    shaped = isinstance(matrix, list) and [len(row) for row in matrix] == [sentences] * len(indices)
    if not shaped or not all(isinstance(n, int) and 0 <= n < sentences for n in indices):
        return [None] * len(indices)
    return margins(parsed)


def _payload(parsed: Parsed, number: int) -> bytes:
    payload = parsed.payloads[number]
    try:
        return b"" if payload is None else decode_base64(payload)
    except NotBase64:
        return b""


def _images(pictures: list[bytes]) -> Row:
    """Columns about pictures, each by its header; of what is none, zeros and empty strings."""
    facts = [_glance(picture) for picture in pictures]
    return {
        "image_bytes": [len(picture) for picture in pictures],
        "width": [width for width, _, _ in facts],
        "height": [height for _, height, _ in facts],
        "format": [kind for _, _, kind in facts],
        # What is not there is equal to nothing.
        "image_sha256": [hashlib.sha256(data).hexdigest() if data else "" for data in pictures],
        "reencoded": [False] * len(pictures),
    }


def _glance(picture: bytes) -> tuple[int, int, str]:
    try:
        facts = verify_image(picture, _GLANCE)
    except ImageRejected:
        return 0, 0, ""
    return facts.width, facts.height, facts.format
