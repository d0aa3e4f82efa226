"""The pictures that a conversion is given: opened, checked and asked by name."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import msgspec

from mmdata.errors import BadInputError
from mmdata.sources.base import RecordDropped, RecordError, SourceDocument
from mmdata.sources.image_objects import ImageObjects
from mmdata.sources.image_store import (
    ImageSource,
    check_images,
    find_images,
    forget_images,
    open_images,
)
from mmdata.sources.names import NamedImages, StoredImage
from mmdata.sources.records import Overlong
from mmdata.wording import plural
from pipelines.conversion.options import Conversion
from schemas.manifest import ExcludedInput


def usable_images(
    options: Conversion, links: Sequence[str], images: str, flag: str
) -> tuple[ImageSource, list[ExcludedInput]]:
    """What the images are in, and which of its files are left out as damaged.

    Args:
        options: of the converter.
        links: folders outside the images' own that links in it may lead to.
        images: a folder, tars or the like.
        flag: that it was given with.

    Raises:
        UserError: it is nothing that holds images.
        BadInputError: with every file of it that is damaged.
    """
    forget_images()
    source = find_images(images, tuple(map(os.path.abspath, links)), flag)
    if source.kind == "folder":
        return source, []
    max_bytes = options.image_policy().max_bytes
    try:
        open_images(source, max_bytes)
    except BadInputError:
        problems = check_images(source, max_bytes)
        if not problems:
            raise
        if not options.skip_bad_inputs:
            raise BadInputError(_all_of(problems, images, flag)) from None
        good = tuple(path for path in source.files if path not in problems)
        if not good and source.kind != "folder-and-archives":
            raise BadInputError(_all_of(problems, images, flag)) from None
        source = replace(source, files=good, kind=source.kind if good else "folder")
        return source, [
            ExcludedInput(file=os.path.basename(path), problem=problem)
            for path, problem in problems.items()
        ]
    return source, []


def _all_of(problems: dict[str, str], images: str, flag: str) -> str:
    lines = [f"{path}: {problem}" for path, problem in problems.items()]
    if len(lines) == 1:
        return lines[0]
    return (
        f"{flag} {images}: {plural(len(lines), 'file')} cannot be used (--skip-bad-inputs "
        "leaves them out):\n  " + "\n  ".join(lines)
    )


def reader(store: NamedImages, document: SourceDocument) -> Callable[[str], StoredImage]:
    """What reads a document's images by name, and by URL where the store knows URLs.

    Args:
        store: where the images lie.
        document: whose images have URLs in their fields.
    """
    if not store.by_url:
        return store.read
    urls = image_urls(document)
    return lambda name: store.read(name, urls.get(name, ""))


def fetch_ahead(
    store: ImageObjects, parse: Callable[[bytes], SourceDocument], record: bytes | Overlong
) -> None:
    """Begin to fetch a record's images from a store that is far away.

    Parsing it twice costs less than waiting once.

    Args:
        store: where the images lie, far away.
        parse: reads a record; one that is broken is told of when its turn comes.
        record: one of the next.
    """
    if isinstance(record, Overlong):
        return
    with suppress(RecordDropped, RecordError):
        for image in parse(record).images:
            if image.name and not image.embedded:
                store.fetch_ahead(image.name)


def image_urls(document: SourceDocument) -> dict[str, str]:
    """The URL of each image's name; what is no string counts as none."""
    urls: dict[str, str] = {}
    for image in document.images:
        try:
            url = msgspec.json.decode(image.fields.get("raw_url", b'""'), type=str)
        except msgspec.DecodeError:
            continue
        urls.setdefault(image.name, url)
    return urls
