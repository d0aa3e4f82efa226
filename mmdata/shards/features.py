"""Precomputed vision features of a shard: one safetensors file, `{shard}.features.safetensors`.

It holds the frozen tower's patch tokens of every image of the shard, in the order of the tar and of
the images in their sample, so that a training run neither decodes nor encodes them. Any reader of
safetensors opens it. Written as a stream (a shard's tokens are gigabytes) under a temporary name,
and renamed when it is whole.

| tensor | dtype, shape | what |
|---|---|---|
| `tokens` | BF16 (n, V, D) | patch tokens; zeros of an image that cannot be decoded |
| `usable` | U8 (n,) | 1, or 0 for an image that cannot be decoded |
| `first` | I64 (s + 1,) | image at which each sample begins, and n |
| `keys` | U8 | keys of the samples, a line feed behind each |

Metadata: `tower` (what made them: equal towers, equal text), `shard_bytes` (of the tar).
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import BadInputError
from mmdata.shards.naming import TAR
from mmdata.storage.atomic import pending_file, sync_folder

FEATURES = ".features.safetensors"
_ALIGNMENT = 8
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 1 << 20
BYTES_PER_VALUE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerOptions:
    """What a process needs to know to load a vision tower and use it.

    Attributes:
        model: name of open_clip, or a folder.
        pretrained: tag of its weights, or a file; None where a folder brings them.
        vision_tokens: `pre_norm` or `post_norm`.
        device: `cpu`, `cuda` or `auto`.
        batch_size: images that go through it at once.
        decode_threads: that bring it images.
        exact: open_clip's pixels bit for bit.
        offline: no network.
    """

    model: str
    pretrained: str | None
    vision_tokens: str
    device: str
    batch_size: int
    decode_threads: int
    exact: bool
    offline: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerSpec:
    """A vision tower as processes tell each other of it.

    Attributes:
        identity: of weights, kind of tokens and preprocessing.
        num_tokens: V, patch tokens of an image.
        width: D.
    """

    identity: str
    num_tokens: int
    width: int

    @property
    def image_bytes(self) -> int:
        """What one image takes."""
        return self.num_tokens * self.width * BYTES_PER_VALUE


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTask:
    """One shard to be encoded.

    Attributes:
        shard: path of the tar.
        output: path of the file to write.
    """

    shard: str
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureResult:
    """What came of a shard.

    Attributes:
        images: of the shard.
        undecodable: of these.
        num_bytes: of the file.
        reused: whether it was there already.
    """

    images: int
    undecodable: int
    num_bytes: int
    reused: bool = False


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """Where things are in a file.

    Attributes:
        path: of it.
        tower: identity of the tower.
        shard_bytes: of the tar that it belongs to.
        shape: (n, V, D).
        tokens_at: byte offset of the tokens.
        first_of: image at which each sample begins, by its key.
        usable: (n,) uint8.
    """

    path: str
    tower: str
    shard_bytes: int
    shape: tuple[int, int, int]
    tokens_at: int
    first_of: dict[str, int]
    usable: NDArray[np.uint8]


def features_path(folder: str, shard: str) -> str:
    """Where a shard's features are in a folder."""
    return os.path.join(folder, os.path.basename(shard).removesuffix(TAR) + FEATURES)


class FeatureWriter:
    """Writes a file from its tokens in order; a context manager, which discards what is not whole.

    Args:
        path: of the file.
        spec: what makes the tokens.
        shard_bytes: of the tar.
        samples: (key, number of images) in order.
    """

    def __init__(
        self, path: str, spec: TowerSpec, shard_bytes: int, samples: Sequence[tuple[str, int]]
    ) -> None:
        first = np.cumsum([0, *(number for _, number in samples)], dtype=np.int64)
        keys = "".join(f"{key}\n" for key, _ in samples).encode()
        total = int(first[-1])
        self._usable = np.zeros(total, np.uint8)
        self._written = 0
        self._tail = (first.tobytes(), keys)
        sizes: dict[str, tuple[str, list[int], int]] = {
            "tokens": ("BF16", [total, spec.num_tokens, spec.width], total * spec.image_bytes),
            "first": ("I64", [len(first)], first.nbytes),
            "usable": ("U8", [total], total),
            "keys": ("U8", [len(keys)], len(keys)),
        }
        header: dict[str, Any] = {
            "__metadata__": {"tower": spec.identity, "shard_bytes": str(shard_bytes)}
        }
        at = 0
        for name, (dtype, shape, size) in sizes.items():
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        self._path = path
        self._file = pending_file(path)
        self._file.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)

    def add(self, tokens: bytes, usable: Sequence[bool]) -> None:
        """Append the tokens of the next images.

        Args:
            tokens: (n, V, D) bfloat16, little-endian.
            usable: of each of the n images, whether it could be decoded.
        """
        self._usable[self._written : self._written + len(usable)] = usable
        self._written += len(usable)
        self._file.write(tokens)

    def publish(self) -> int:
        """Make the file appear; returns its size in bytes."""
        first, keys = self._tail
        for part in (first, self._usable.tobytes(), keys):
            self._file.write(part)
        self._file.publish()
        sync_folder(os.path.dirname(self._path))
        return self._file.size

    def __enter__(self) -> "FeatureWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.discard()


def read_features_header(path: str) -> FeatureFile:
    """What a file says of itself; its tokens are not touched.

    Raises:
        BadInputError: it cannot be read, or is no such file.
    """
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if not 0 < length <= _MAX_HEADER_BYTES:
                raise BadInputError(f"{path}: expected a safetensors file")
            header = json.loads(file.read(length))
            data_at = _LENGTH_BYTES + length

            def part(name: str) -> bytes:
                start, end = header[name]["data_offsets"]
                file.seek(data_at + start)
                return file.read(end - start)

            first = np.frombuffer(part("first"), np.int64).tolist()
            keys = part("keys").decode().split("\n")[:-1]
            usable = np.frombuffer(part("usable"), np.uint8)
            size = os.fstat(file.fileno()).st_size
        if size != data_at + header["keys"]["data_offsets"][1]:
            raise BadInputError(f"{path}: {size} bytes: cut short; make it again")
        num_images, num_tokens, width = header["tokens"]["shape"]
        return FeatureFile(
            path=path,
            tower=header["__metadata__"]["tower"],
            shard_bytes=int(header["__metadata__"]["shard_bytes"]),
            shape=(num_images, num_tokens, width),
            tokens_at=data_at + header["tokens"]["data_offsets"][0],
            first_of=dict(zip(keys, first[:-1], strict=True)),
            usable=usable,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(
            f"{path}: cannot be read as vision features ({error}); make it with mmdata features"
        ) from error
