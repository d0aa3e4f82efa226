"""`mmdata features`: what an actor does with a shard, from encoded images to patch tokens on disk.

Where it runs is the pipeline's business (`pipelines/features/run.py`), which is handed
`ShardEncoder` by the command line. Images are decoded by a few threads, one batch ahead of the
tower; the tokens of a batch are read back and written when the tower has been given the next one.
The tower computes in float32 on a CPU and under bfloat16 autocast on a GPU, and bfloat16 is what is
kept.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn

from flamingo.data.decode import UndecodableError, decode_image, normalization_of
from flamingo.inference.device_queue import DeviceQueue, read_behind
from flamingo.modules.absent_tower import tower_identity
from flamingo.modules.vision import encode_images, hub_offline, load_tower, tower_name
from flamingo.parallel.world import choose_device
from mmdata.errors import BadInputError
from mmdata.shards.features import (
    FeatureResult,
    FeatureTask,
    FeatureWriter,
    TowerOptions,
    TowerSpec,
    read_features_header,
)
from mmdata.shards.reader import Sample, ShardReader
from mmdata.storage.files import size_of
from mmdata.training_view.records import (
    IMAGE_EXTENSIONS,
    Base64,
    UnusableError,
    image_bytes,
    read_record,
)

_Image = Base64 | memoryview | None


class ShardEncoder:
    """A vision tower that turns shards into files of patch tokens.

    Attributes:
        spec: of the tower.

    Raises:
        UserError: the tower cannot be had, or is none whose tokens can be read.
    """

    def __init__(self, options: TowerOptions) -> None:
        self._options = options
        model = tower_name(options.model)
        pretrained = None if model.startswith("local-dir:") else options.pretrained
        with hub_offline(offline=options.offline):
            identity = tower_identity(model, pretrained, options.vision_tokens)
        tower, image_processor = load_tower(
            model,
            pretrained,
            vision_tokens=cast(Any, options.vision_tokens),
            offline=options.offline,
        )
        normalization = normalization_of(image_processor)
        self._normalization = dataclasses.replace(normalization, exact=options.exact)
        self._device = choose_device(options.device)
        self._queue = DeviceQueue(self._device)
        self._tower: nn.Module = tower.to(self._device)
        self._size_px = int(cast(Any, tower).image_size[0])
        blank = torch.zeros(1, 3, self._size_px, self._size_px, dtype=torch.uint8)
        _, num_tokens, width = self._queue.start(blank, self._encode)().shape
        self.spec = TowerSpec(identity=identity, num_tokens=num_tokens, width=width)

    def encode_shard(self, task: FeatureTask) -> Iterator[FeatureResult | None]:
        """Write a shard's features, unless they are there; yields None as it goes, then what came.

        Raises:
            BadInputError: the shard is damaged.
        """
        shard_bytes = size_of(task.shard)
        if (before := self._made_before(task.output, shard_bytes)) is not None:
            yield before
            return
        with ShardReader(task.shard) as reader:
            samples = [(sample.key, len(_images_of(sample))) for sample in reader]
            images = (image for sample in reader for image in _images_of(sample))
            with FeatureWriter(task.output, self.spec, shard_bytes, samples) as writer:
                undecodable = 0
                for tokens, usable in read_behind(map(self._start, self._decoded(images))):
                    undecodable += usable.count(False)
                    writer.add(tokens, usable)
                    yield None
                num_bytes = writer.publish()
        total = sum(number for _, number in samples)
        yield FeatureResult(images=total, undecodable=undecodable, num_bytes=num_bytes)

    def _made_before(self, path: str, shard_bytes: int) -> FeatureResult | None:
        """What is in a file of the same tower and shard; None where it is to be made."""
        try:
            found = read_features_header(path)
        except BadInputError:  # none, or another program's: it is written anew
            return None
        if (found.tower, found.shard_bytes) != (self.spec.identity, shard_bytes):
            return None
        undecodable = len(found.usable) - int(found.usable.sum())
        return FeatureResult(
            images=found.shape[0], undecodable=undecodable, num_bytes=size_of(path), reused=True
        )

    def _decoded(self, images: Iterator[_Image]) -> Iterator[list[Tensor | None]]:
        """Batches of pixels, None for what cannot be decoded; the next is being made."""
        with ThreadPoolExecutor(self._options.decode_threads, "decode") as pool:

            def submit() -> list[Future[Tensor | None]]:
                few = islice(images, self._options.batch_size)
                return [pool.submit(self._decode, image) for image in few]

            current = submit()
            while current:
                following = submit()
                yield [future.result() for future in current]
                current = following

    def _decode(self, image: _Image) -> Tensor | None:
        if image is None:
            return None
        try:
            return decode_image(image_bytes(image), self._size_px, exact=self._options.exact)
        except (UndecodableError, ValueError):
            return None

    def _start(self, pixels: list[Tensor | None]) -> Callable[[], tuple[bytes, list[bool]]]:
        """Give a batch to the tower; what is returned waits for its tokens.

        Args:
            pixels: (3, S, S) uint8 of each image; None for one that cannot be decoded.

        Returns:
            what gives the bytes of (n, V, D) tokens in bfloat16, zeros for images that cannot be
            decoded, and which of the n images could be.
        """
        usable = [one is not None for one in pixels]
        given = [one for one in pixels if one is not None]
        if not given:
            nothing = bytes(len(pixels) * self.spec.image_bytes)
            return lambda: (nothing, usable)
        return partial(self._finished, self._queue.start(torch.stack(given), self._encode), usable)

    def _finished(self, wait: Callable[[], Tensor], usable: list[bool]) -> tuple[bytes, list[bool]]:
        tokens = wait()
        if not all(usable):
            shape = (len(usable), self.spec.num_tokens, self.spec.width)
            every = torch.zeros(shape, dtype=torch.bfloat16)
            every[torch.tensor(usable)] = tokens
            tokens = every
        return tokens.view(torch.uint8).numpy().tobytes(), usable

    @torch.no_grad()
    def _encode(self, pixels: Tensor) -> Tensor:
        """(n, 3, S, S) uint8 -> (n, V, D) bf16, both on the tower's device."""
        images = self._normalization.applied(pixels)
        on_gpu = self._device.type == "cuda"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=on_gpu):
            tokens = encode_images(self._tower, images, self._options.batch_size)
        return tokens.to(torch.bfloat16)


def _images_of(sample: Sample) -> Sequence[_Image]:
    """The images of a document or a pair; none of any other sample, which training leaves out."""
    is_pair = any(extension in sample.members for extension in IMAGE_EXTENSIONS)
    try:
        return read_record(sample.members, "caption" if is_pair else "interleaved").images
    except UnusableError:
        return []
