"""Batches on their way through a device, so that it has the next one when it is done with one.

On a GPU nothing here waits: a batch is copied there from pinned memory on a stream of its own,
what is computed is queued, and what comes of it is copied back into pinned memory on a third
stream. Whoever wants it waits for its own copy, not for what was queued behind it. On a CPU a
batch is computed when it is started.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
#: Waits for what was started, and gives it.
Started = Callable[[], Tensor]


class DeviceQueue:
    """Starts computations on a device; several threads may start theirs.

    Args:
        device: where they run.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams: tuple[torch.cuda.Stream, torch.cuda.Stream] | None = None
        if device.type == "cuda":
            self._streams = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def start(self, batch: Tensor, compute: Callable[[Tensor], Tensor]) -> Started:
        """Bring a batch to the device and queue what is computed of it.

        Args:
            batch: on the CPU.
            compute: takes it on the device, and returns what is to be had, there.

        Returns:
            what waits for the result and gives it on the CPU.
        """
        if self._streams is None:
            result = compute(batch)
            return lambda: result
        upload, download = self._streams
        with torch.cuda.stream(upload):
            there = batch.pin_memory().to(self._device, non_blocking=True)
        own = torch.cuda.current_stream(self._device)
        own.wait_stream(upload)
        there.record_stream(own)
        computed = compute(there)
        download.wait_stream(own)
        with torch.cuda.stream(download):
            here = computed.to("cpu", non_blocking=True)  # into pinned memory
            computed.record_stream(download)
            copied = torch.cuda.Event()
            copied.record(download)

        def wait() -> Tensor:
            copied.synchronize()
            return here

        return wait


def read_behind(started: Iterable[Callable[[], Result]], behind: int = 1) -> Iterator[Result]:
    """What comes of computations in their order, each waited for when others have been started.

    Args:
        started: starts one whenever it is asked for the next.
        behind: how many are started after one before it is waited for.
    """
    waiting: deque[Callable[[], Result]] = deque()
    for one in started:
        waiting.append(one)
        if len(waiting) > behind:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()
