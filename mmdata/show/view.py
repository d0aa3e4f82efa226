"""A sample as it is shown, whatever it is shown on: what was read of it, and what could not be.

Strings are those of the data; each way of showing makes them harmless to where it writes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmdata.errors import UserError
from mmdata.shards.reader import Sample, ShardReader, read_samples_table, samples_path
from mmdata.show.choose import Extractor, choose
from mmdata.show.options import Show
from mmdata.storage.files import exists
from mmdata.storage.paths import expand_paths
from mmdata.validation.documents import Parsed, Unreadable, parse_document
from mmdata.validation.image_rules import NotBase64, decode_base64
from mmdata.validation.tar_rules import IMAGE_EXTENSIONS, TEXT_EXTENSION

Row = dict[str, Any]


@dataclass(slots=True)
class ImageView:
    """A picture of a sample.

    Attributes:
        number: of the picture, from 0.
        sentence: that it sits at; None where nothing says so.
        width, height, format: as recorded; None where they are not.
        data: the encoded file; None where there is none.
        problem: why there is none.
        similarity: to its sentence; None where it is not recorded.
        margin: to its best other sentence; None where that is not known.
        name: as recorded.
        written: where `--extract` put it.
    """

    number: int
    sentence: int | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    data: bytes | None = None
    problem: str = ""
    similarity: float | None = None
    margin: float | None = None
    name: str | None = None
    written: Path | None = None


@dataclass(slots=True)
class SampleView:
    """A sample.

    Attributes:
        key, shard, offset, num_bytes: which, and where it lies.
        row: of the samples table, None without one.
        fields: of a document: url, alignment, similarity_source, as far as it has them.
        sentences: its text.
        images: its pictures.
        others: (extension, bytes) of further members.
        members: extensions in the order of the tar.
        is_pair: a picture with its text, not a document.
        error: why it cannot be read; empty where it can.
    """

    key: str
    shard: str
    offset: int
    num_bytes: int
    row: Row | None = None
    fields: dict[str, str] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)
    images: list[ImageView] = field(default_factory=list)
    others: list[tuple[str, int]] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    is_pair: bool = False
    error: str = ""


def views(options: Show) -> Iterator[SampleView]:
    """The samples that are asked for: the one with the key, some at random, or the first.

    Raises:
        UserError: a path does not exist, no shard has the key, or the folder for pictures
            cannot be written to.
        BadInputError: a shard is damaged.
    """
    if options.key is not None and options.random is not None:
        raise UserError("give a key or --random, not both")
    expansion = expand_paths(options.shards, (".tar",))
    if expansion.problems:
        raise UserError("; ".join(f"{path}: {why}" for path, why in expansion.problems[:20]))
    extract = Extractor(options.extract) if options.extract is not None else None
    wanted = choose(expansion.files, key=options.key, count=options.random, seed=options.seed)
    for path, keys in wanted:
        rows = _rows(path)
        with ShardReader(path) as reader:
            for key in keys:
                view = view_of(reader.read(key), path, rows.get(key))
                for image in view.images if extract is not None else ():
                    if extract is not None and image.data is not None:
                        image.written = extract(key, image.number, image.data)
                yield view


def view_of(sample: Sample, shard: str, row: Row | None) -> SampleView:
    """One sample as a reader gives it, with its row of the samples table."""
    size = sum(member.nbytes for member in sample.members.values())
    view = SampleView(sample.key, shard, sample.offset, size, row)
    view.members = list(sample.members)
    if set(sample.members) == {"json"}:
        _fill_document(view, bytes(sample.members["json"]))
    else:
        view.is_pair = True
        _fill_pair(view, sample)
    return view


def _fill_document(view: SampleView, raw: bytes) -> None:
    try:
        parsed = parse_document(raw)
    except Unreadable as error:
        path, expected, got = error.problem
        view.error = f"{error.code} expected {expected}, got {got} - at `{path}`"
        return
    document = parsed.document
    for name in ("url", "alignment", "similarity_source"):
        value = getattr(document, name)
        if isinstance(value, str):
            view.fields[name] = value
    view.sentences = document.text_list
    margins = view.row["margin"] if view.row else []
    view.images = [_image(parsed, number) for number in range(len(document.image_info))]
    for image, margin in zip(view.images, margins, strict=False):
        image.margin = margin


def _image(parsed: Parsed, number: int) -> ImageView:
    image, payload = parsed.document.image_info[number], parsed.payloads[number]
    view = ImageView(number)
    index = image.matched_text_index
    view.sentence = index if isinstance(index, int) and index >= 0 else None
    if isinstance(image.width, int) and isinstance(image.height, int):
        view.width, view.height = image.width, image.height
    view.format = image.format if isinstance(image.format, str) else None
    view.name = image.image_name if isinstance(image.image_name, str) else None
    if isinstance(image.matched_sim, int | float):
        view.similarity = image.matched_sim
    if payload is None:
        view.problem = "no bytes"
        return view
    try:
        view.data = decode_base64(payload)
    except NotBase64 as error:
        view.problem = f"{error.code} {error.got}"
    return view


def _fill_pair(view: SampleView, sample: Sample) -> None:
    for extension, member in sample.members.items():
        if extension == TEXT_EXTENSION:
            view.sentences.append(str(member, "utf-8", "replace"))
        elif extension in IMAGE_EXTENSIONS:
            image = ImageView(len(view.images), 0, format=extension, data=bytes(member))
            view.images.append(image)
        else:
            view.others.append((extension, member.nbytes))


def _rows(shard: str) -> dict[str, Row]:
    """Rows of the samples table beside a shard, by key; none without one."""
    path = samples_path(shard)
    if not exists(path):
        return {}
    names = ["key", "source_file", "source_member", "source_record", "margin"]
    table = read_samples_table(path, names)
    rows = (dict(zip(names, row, strict=True)) for row in zip(*table.values(), strict=True))
    return {row["key"]: row for row in rows}
