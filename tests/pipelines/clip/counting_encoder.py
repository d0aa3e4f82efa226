"""A vision tower for tests, of its own kind: a token of an image is the number of its sample.

In folders of its own trouble begins: see `TroubledEncoder`.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from mmdata.errors import UserError
from mmdata.shards.features import (
    FeatureResult,
    FeatureTask,
    FeatureWriter,
    TowerOptions,
    TowerSpec,
)
from mmdata.shards.reader import ShardReader
from mmdata.storage.files import size_of


class CountingEncoder:
    """Encodes shards of documents with two images each."""

    spec = TowerSpec(identity="counting", num_tokens=2, width=3)

    def __init__(self, options: TowerOptions) -> None:
        """It is told nothing that it needs."""

    def encode_shard(self, task: FeatureTask) -> Iterator[FeatureResult | None]:
        with ShardReader(task.shard) as reader:
            samples = [(key, 2) for key in reader.keys]
        spec, size = self.spec, size_of(task.shard)
        with FeatureWriter(task.output, spec, size, samples) as writer:
            for number, _ in enumerate(samples):
                writer.add(bytes([number]) * 2 * spec.image_bytes, [True, True])
                yield None
            num_bytes = writer.publish()
        yield FeatureResult(images=2 * len(samples), undecodable=0, num_bytes=num_bytes)


class TroubledEncoder(CountingEncoder):
    """Refuses the first shard, hangs once at the second, always at the third."""

    def encode_shard(self, task: FeatureTask) -> Iterator[FeatureResult | None]:
        number = int(Path(task.shard).stem)
        if number == 0:
            raise UserError(f"{task.shard}: cannot")
        seen = Path(task.output).with_suffix(".seen")
        if number == 2 or (number == 1 and not seen.exists()):
            seen.touch()
            time.sleep(3600)
        yield from super().encode_shard(task)
