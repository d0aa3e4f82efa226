"""Which samples are shown, and where the pictures that `--extract` writes go."""

import random
import re
from collections.abc import Sequence
from pathlib import Path

from mmdata.errors import UserError
from mmdata.shards.reader import ShardReader
from mmdata.wording import plural

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


def choose(
    paths: Sequence[str], *, key: str | None, count: int | None, seed: int
) -> list[tuple[str, list[str]]]:
    """Shards with the keys that are shown: the one asked for, some at random, or the first.

    Raises:
        UserError: no shard has the key, or there are no samples.
        BadInputError: a shard is damaged.
    """
    if count is not None:
        return _draw(paths, count, seed)
    for path in paths:
        with ShardReader(path) as reader:
            if key is None and len(reader):
                return [(path, reader.keys[:1])]
            if key is not None and key in reader:
                return [(path, [key])]
    if key is None:
        raise UserError(f"no samples in {plural(len(paths), 'shard')}")
    raise UserError(f"no shard of {len(paths)} holds the key {key!r}")


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
        raise UserError(f"no samples in {plural(len(paths), 'shard')}")
    order = {path: number for number, path in enumerate(paths)}
    drawn.sort(key=lambda pair: (order[pair[0]], pair[1]))
    return [(path, [key]) for path, key in drawn]


class Extractor:
    """Writes pictures into one folder, under names that no data has a say in."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._owners: dict[str, str] = {}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--extract {folder}: {error.strerror or error}") from error

    def __call__(self, key: str, number: int, data: bytes) -> Path:
        """Write a picture of a sample; returns where."""
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
