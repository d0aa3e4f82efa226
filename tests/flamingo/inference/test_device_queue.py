"""The tower is fed ahead: while it computes, its next batch is there and one more is decoded.

A pretended device is done with a batch only when the host has done all of what it could do
meanwhile, so that what waits for the device in a wrong place is seen by the order of events.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from flamingo.data.decode import decode_image
from flamingo.inference import features
from flamingo.inference.device_queue import read_behind
from flamingo.inference.features import ShardEncoder
from mmdata.shards.features import FeatureResult, FeatureTask, FeatureWriter
from pipelines.features.options import Features
from pipelines.features.run import tower_options
from tests.flamingo.conftest import World

BATCH = 4
#: Far longer than the host takes for what it can do without the device.
PATIENCE_SECONDS = 20.0


class Events:
    """What has happened so far, by kind; several threads tell it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._told: dict[str, int] = {}

    def tell(self, kind: str) -> int:
        """Something has happened; returns how often it had before."""
        with self._changed:
            before = self._told.get(kind, 0)
            self._told[kind] = before + 1
            self._changed.notify_all()
        return before

    def seen(self, kind: str, times: int) -> bool:
        """Wait until something has happened so often."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._told.get(kind, 0) >= times, PATIENCE_SECONDS
            )


class PatientDevice:
    """Computes a batch in a thread of its own, when the host is as far as it can be."""

    def __init__(self, events: Events, images: int) -> None:
        self._events, self._images = events, images
        self._batches = -(-images // BATCH)
        self._thread = ThreadPoolExecutor(1)
        self._blank = True
        self.missed: list[tuple[int, str]] = []

    def start(self, batch: Tensor, compute: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        if self._blank:  # by which the encoder learns the shape of tokens
            self._blank = False
            return lambda: compute(batch)
        number = self._events.tell("started")
        return self._thread.submit(self._done, number, batch, compute).result

    def _done(self, number: int, batch: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Notes what was not done by the host while it had time to."""
        for kind, times in (
            ("written", number),
            ("started", min(self._batches, number + 2)),
            ("decoded", min(self._images, BATCH * (number + 3))),
        ):
            if not self.missed and not self._events.seen(kind, times):
                self.missed.append((number, kind))
        return compute(batch)


def encoded(world: World, output: Path) -> FeatureResult:
    options = Features(
        shards=(str(world.shards),),
        output=str(output),
        vision_encoder_path=str(world.clip),
        vision_chunk=BATCH,
        offline=True,
    )
    encoder = ShardEncoder(tower_options(options, "cpu"))
    task = FeatureTask(shard=str(min(world.shards.glob("*.tar"))), output=str(output))
    *_, last = encoder.encode_shard(task)
    assert last is not None
    return last


def test_decoding_and_writing_go_on_while_the_tower_computes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = encoded(world, tmp_path / "plain")
    assert plain.images > 4 * BATCH
    events = Events()
    device = PatientDevice(events, plain.images)

    def decoded(*given: Any, **more: Any) -> Tensor:
        try:
            return decode_image(*given, **more)
        finally:
            events.tell("decoded")

    class Writer(FeatureWriter):
        def add(self, *given: Any) -> None:
            super().add(*given)
            events.tell("written")

    monkeypatch.setattr(features, "DeviceQueue", lambda _: device)
    monkeypatch.setattr(features, "decode_image", decoded)
    monkeypatch.setattr(features, "FeatureWriter", Writer)
    assert encoded(world, tmp_path / "ahead") == plain
    assert device.missed == []
    assert (tmp_path / "ahead").read_bytes() == (tmp_path / "plain").read_bytes()


@pytest.mark.parametrize(("behind", "order"), [(0, "aAbBcC"), (1, "abAcBC"), (5, "abcABC")])
def test_what_is_started_is_read_in_order_that_many_behind(behind: int, order: str) -> None:
    told: list[str] = []

    def start(name: str) -> Callable[[], None]:
        told.append(name)
        return lambda: told.append(name.upper())

    assert list(read_behind(map(start, "abc"), behind)) == [None] * 3
    assert "".join(told) == order
