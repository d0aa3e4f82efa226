"""A document as text: its sentences, the pictures where they sit, and where it came from.

For looking, not for parsing. Text from shards is data: what would act on a terminal is printed as
an escape, and the pictures that `--extract` writes are named by key and number, never by
`image_name`.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from mmdata.errors import UserError
from mmdata.shards.reader import Sample, ShardReader, read_samples_table, samples_path
from mmdata.storage.files import exists
from mmdata.storage.paths import expand_paths
from mmdata.validation.documents import Parsed, Unreadable, parse_document
from mmdata.validation.findings import printable
from mmdata.validation.image_rules import NotBase64, decode_base64
from mmdata.validation.tar_rules import IMAGE_EXTENSIONS
from schemas.document import ShardImage

_UNSAFE = re.compile(r"[^0-9A-Za-z_-]")
_MAX_STEM = 120
_MAGIC = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
)


class ShowOptions(Protocol):
    """What `show` is told (`pipelines.config.Show`)."""

    @property
    def shards(self) -> tuple[str, ...]: ...
    @property
    def key(self) -> str | None: ...
    @property
    def random(self) -> int | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def extract(self) -> str | None: ...


Extract = Callable[[str, int, bytes], Path]


def show(options: ShowOptions) -> str:
    """Samples as text: the one with the key, some at random, or the first.

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
    extract = _Extractor(options.extract) if options.extract is not None else None
    wanted = _choose(expansion.files, options)
    texts = []
    for path, keys in wanted:
        with ShardReader(path) as reader:
            provenance = _Provenance(path)
            for key in keys:
                texts.append(render_sample(reader.read(key), path, provenance.of(key), extract))
    return "\n\n".join(texts)


def render_sample(
    sample: Sample, shard: str, row: dict[str, Any] | None, extract: Extract | None = None
) -> str:
    """One sample as text.

    Args:
        sample: as a reader gives it.
        shard: path of its tar.
        row: of the samples table, None without one.
        extract: writes a picture and says where; None to write none.
    """
    size = sum(view.nbytes for view in sample.members.values())
    lines = [f"{printable(sample.key)}  {shard} @ {sample.offset} ({size:,} bytes)"]
    if row is not None:
        member = f" > {row['source_member']}" if row["source_member"] else ""
        where = printable(f"{row['source_file']}{member}")
        lines.append(f"source: {where}, record {row['source_record']}")
    if set(sample.members) == {"json"}:
        lines += _document_lines(sample, row, extract)
    else:
        lines += _pair_lines(sample, extract)
    return "\n".join(lines)


def _document_lines(
    sample: Sample, row: dict[str, Any] | None, extract: Extract | None
) -> Iterator[str]:
    """An interleaved document: each sentence, the images that sit there below it."""
    try:
        parsed = parse_document(bytes(sample.members["json"]))
    except Unreadable as error:
        path, expected, got = error.problem
        yield f"not a document: {error.code} expected {expected}, got {got} - at `{path}`"
        return
    document = parsed.document
    for name in ("url", "alignment", "similarity_source"):
        value = getattr(document, name)
        if isinstance(value, str):
            yield f"{name}: {printable(value)}"
    yield f"{len(document.text_list)} sentences, {len(document.image_info)} images"
    placed: dict[int, list[str]] = {}
    for number, image in enumerate(document.image_info):
        margin = row["margin"][number] if row and number < len(row["margin"]) else None
        text = _image_line(sample.key, parsed, number, margin, extract)
        index = image.matched_text_index
        placed.setdefault(index if isinstance(index, int) else -1, []).append(text)
    for number, sentence in enumerate(document.text_list):
        yield f"  [{number}] {printable(sentence)}"
        yield from placed.pop(number, [])
    for index, texts in sorted(placed.items()):
        yield "  at no sentence" if index < 0 else f"  [{index}] (there is no such sentence)"
        yield from texts


def _image_line(
    key: str, parsed: Parsed, number: int, margin: float | None, extract: Extract | None
) -> str:
    """An image: size, format, bytes, similarity, name."""
    image, payload = parsed.document.image_info[number], parsed.payloads[number]
    parts = [f"image {number}:"]
    parts += _facts(image)
    data = None
    if payload is None:
        parts.append("no bytes,")
    else:
        try:
            data = decode_base64(payload)
            parts.append(f"{len(data):,} bytes,")
        except NotBase64 as error:
            parts.append(f"{error.code} {error.got},")
    if isinstance(image.matched_sim, int | float):
        parts.append(f"similarity {image.matched_sim:.4f}")
        parts.append(f"(margin {margin:+.4f})," if margin is not None else ",")
    if isinstance(image.image_name, str):
        parts.append(f"name {printable(image.image_name)!r}")
    if extract is not None and data is not None:
        parts.append(f"-> {extract(key, number, data)}")
    return "      + " + " ".join(parts).replace(" ,", ",").rstrip(",")


def _facts(image: ShardImage) -> Iterator[str]:
    if isinstance(image.width, int) and isinstance(image.height, int):
        yield f"{image.width}x{image.height}"
    if isinstance(image.format, str):
        yield printable(image.format)


def _pair_lines(sample: Sample, extract: Extract | None) -> Iterator[str]:
    """A picture with its text, and whatever else the sample holds."""
    number = 0
    for extension, view in sample.members.items():
        if extension == "txt":
            yield f"  {printable(str(view, 'utf-8', 'replace'))}"
        elif extension in IMAGE_EXTENSIONS:
            data = bytes(view)
            written = f" -> {extract(sample.key, number, data)}" if extract else ""
            yield f"      + image {number}: {extension}, {len(data):,} bytes{written}"
            number += 1
        else:
            yield f"  {printable(extension)}: {view.nbytes:,} bytes"


def _choose(paths: Sequence[str], options: ShowOptions) -> list[tuple[str, list[str]]]:
    """Which keys of which shards."""
    if options.random is not None:
        return _draw(paths, options.random, options.seed)
    for path in paths:
        with ShardReader(path) as reader:
            if options.key is None and len(reader):
                return [(path, reader.keys[:1])]
            if options.key is not None and options.key in reader:
                return [(path, [options.key])]
    if options.key is None:
        raise UserError(f"no samples in {len(paths)} shards")
    raise UserError(f"no shard of {len(paths)} holds the key {options.key!r}")


def _draw(paths: Sequence[str], count: int, seed: int) -> list[tuple[str, list[str]]]:
    """Some samples, each as likely as any other, the same for the same seed and shards."""
    generator = random.Random(seed)
    drawn: list[tuple[str, str]] = []
    seen = 0
    for path in paths:
        with ShardReader(path) as reader:
            keys = reader.keys
        for key in keys:
            seen += 1
            if len(drawn) < count:
                drawn.append((path, key))
            elif (place := generator.randrange(seen)) < count:
                drawn[place] = (path, key)
    if not drawn:
        raise UserError(f"no samples in {len(paths)} shards")
    order = {path: number for number, path in enumerate(paths)}
    drawn.sort(key=lambda pair: (order[pair[0]], pair[1]))
    return [(path, [key]) for path, key in drawn]


class _Provenance:
    """Rows of the samples table of one shard, where it has one."""

    def __init__(self, shard: str) -> None:
        self._rows: dict[str, dict[str, Any]] = {}
        path = samples_path(shard)
        if exists(path):
            names = ["key", "source_file", "source_member", "source_record", "margin"]
            table = read_samples_table(path, names)
            for values in zip(*table.values(), strict=True):
                row = dict(zip(names, values, strict=True))
                self._rows[row["key"]] = row

    def of(self, key: str) -> dict[str, Any] | None:
        return self._rows.get(key)


class _Extractor:
    """Writes pictures into one folder, under names that no data has a say in."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._owners: dict[str, str] = {}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--extract {folder}: {error.strerror or error}") from error

    def __call__(self, key: str, number: int, data: bytes) -> Path:
        path = self._folder / f"{self._stem(key)}_{number}.{_extension(data)}"
        try:
            path.write_bytes(data)
        except OSError as error:
            raise UserError(f"--extract {path}: {error.strerror or error}") from error
        return path

    def _stem(self, key: str) -> str:
        """The key without what a file name should not have; two keys never share a stem."""
        plain = _UNSAFE.sub("_", key)[:_MAX_STEM] or "_"
        stem, again = plain, 1
        while self._owners.setdefault(stem, key) != key:
            again += 1
            stem = f"{plain}-{again}"
        return stem


def _extension(data: bytes) -> str:
    """What a picture is, by its first bytes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((name for magic, name in _MAGIC if data.startswith(magic)), "bin")
