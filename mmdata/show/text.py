"""A document as text: its sentences, the pictures where they sit, and where it came from.

For looking, not for parsing. Text from shards is data: what would act on a terminal is printed as
an escape, and the pictures that `--extract` writes are named by key and number, never by
`image_name`.
"""

import json
from collections.abc import Iterator

from mmdata.show.options import Show
from mmdata.show.view import ImageView, SampleView, views
from mmdata.validation.findings import printable
from mmdata.wording import plural


def show(options: Show) -> str:
    """Samples as text; see `views`."""
    return "\n\n".join("\n".join(sample_lines(view)) for view in views(options))


def show_json(options: Show) -> str:
    """Samples as JSON, one a line, in ASCII; pictures as facts, without their bytes."""
    return "".join(json.dumps(_record(view)) + "\n" for view in views(options))


def sample_lines(view: SampleView) -> Iterator[str]:
    """One sample."""
    where = f"{printable(view.shard)} @ {view.offset} ({plural(view.num_bytes, 'byte')})"
    yield f"{printable(view.key)}  {where}"
    yield from source_lines(view)
    if view.is_pair:
        yield from _pair_lines(view)
    elif view.error:
        yield f"not a document: {printable(view.error)}"
    else:
        yield from _document_lines(view)


def source_lines(view: SampleView) -> Iterator[str]:
    """Where a sample came from, where that is known."""
    row = view.row
    if row is not None:
        member = f" > {row['source_member']}" if row["source_member"] else ""
        where = printable(f"{row['source_file']}{member}")
        yield f"source: {where}, record {row['source_record']}"


def _document_lines(view: SampleView) -> Iterator[str]:
    """An interleaved document: each sentence, the images that sit there below it."""
    for name, value in view.fields.items():
        yield f"{name}: {printable(value)}"
    yield f"{plural(len(view.sentences), 'sentence')}, {plural(len(view.images), 'image')}"
    placed = by_sentence(view)
    for number, sentence in enumerate(view.sentences):
        yield f"  [{number}] {printable(sentence)}"
        yield from (f"      + {image_line(image)}" for image in placed.pop(number, []))
    for index, images in sorted(placed.items()):
        yield "  at no sentence" if index < 0 else f"  [{index}] (there is no such sentence)"
        yield from (f"      + {image_line(image)}" for image in images)


def by_sentence(view: SampleView) -> dict[int, list[ImageView]]:
    """The pictures by the sentence that they sit at; -1: at none."""
    placed: dict[int, list[ImageView]] = {}
    for image in view.images:
        placed.setdefault(-1 if image.sentence is None else image.sentence, []).append(image)
    return placed


def image_line(image: ImageView) -> str:
    """An image: size, format, bytes, similarity, name."""
    facts = [f"{image.width}x{image.height}"] if image.width is not None else []
    facts += [printable(image.format)] if image.format is not None else []
    facts.append(printable(image.problem) if image.data is None else f"{len(image.data):,} bytes")
    parts = [" ".join(facts)]
    if image.similarity is not None:
        margin = f" (margin {image.margin:+.4f})" if image.margin is not None else ""
        parts.append(f"similarity {image.similarity:.4f}{margin}")
    if image.name is not None:
        parts.append(f"name {printable(image.name)!r}")
    written = f" -> {image.written}" if image.written is not None else ""
    return f"image {image.number}: {', '.join(parts)}{written}"


def _pair_lines(view: SampleView) -> Iterator[str]:
    """A picture with its text, and whatever else the sample holds, in the order of the tar."""
    images, texts, others = iter(view.images), iter(view.sentences), iter(view.others)
    formats = {image.format for image in view.images}
    for extension in view.members:
        if extension in formats:
            image = next(images)
            written = f" -> {image.written}" if image.written is not None else ""
            size = len(image.data or b"")
            yield f"      + image {image.number}: {extension}, {plural(size, 'byte')}{written}"
        elif extension == "txt":
            yield f"  {printable(next(texts))}"
        else:
            name, size = next(others)
            yield f"  {printable(name)}: {plural(size, 'byte')}"


def _record(view: SampleView) -> dict[str, object]:
    """A sample as JSON says it."""
    row = view.row
    return {
        "key": view.key,
        "shard": view.shard,
        "offset": view.offset,
        "bytes": view.num_bytes,
        "source": row and {name: row[f"source_{name}"] for name in ("file", "member", "record")},
        **view.fields,
        "sentences": view.sentences,
        "images": [_image_record(image) for image in view.images],
        "other_members": {extension: size for extension, size in view.others},
        "error": view.error or None,
    }


def _image_record(image: ImageView) -> dict[str, object]:
    return {
        "sentence": image.sentence,
        "width": image.width,
        "height": image.height,
        "format": image.format,
        "bytes": None if image.data is None else len(image.data),
        "similarity": image.similarity,
        "margin": image.margin,
        "name": image.name,
        "problem": image.problem or None,
        "written": None if image.written is None else str(image.written),
    }
