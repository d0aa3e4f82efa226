"""Downloads for code that is not asynchronous: many at once, handed out in the order of asking.

An event loop runs in a thread of its own and keeps at work while the caller decodes and writes.
Memory is bounded: above `MAX_HELD_BYTES` of bodies that nobody has taken yet no further request
begins, and bodies that grow large wait, all but the one that the caller waits for. Where that one
is not being answered just now, those that wait go on, since it may need their place.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from mmdata.dependencies import require
from mmdata.fetch.gate import Budget
from mmdata.fetch.outcome import Fetched
from mmdata.fetch.policy import MIB, FetchPolicy

if TYPE_CHECKING:
    from mmdata.fetch.client import Client

T = TypeVar("T")
MAX_HELD_BYTES = 64 * MIB
#: URLs that are asked ahead of the one that is waited for.
WINDOW = 1024
_REFILL = 64


@dataclass(slots=True)
class _Slot(Generic[T]):
    """An item under way."""

    item: T
    url: str | None
    number: int
    done: threading.Event = field(default_factory=threading.Event)
    result: Fetched | None = None
    error: BaseException | None = None


def check_installed() -> None:
    """Raise MissingExtraError where aiohttp is not there."""
    require("download", ("aiohttp",), "--fetcher native")


class Fetcher:
    """A client in a thread; a context manager.

    Args:
        policy: limits.

    Raises:
        MissingExtraError: aiohttp is not installed.
    """

    def __init__(self, policy: FetchPolicy) -> None:
        check_installed()
        from mmdata.fetch.client import Client

        self._new_client: Callable[[], Client] = partial(Client, policy)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fetch", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._budget = Budget(self._loop, MAX_HELD_BYTES)
        self._next = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._client = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def fetched(
        self, items: Iterable[T], url_of: Callable[[T], str | None]
    ) -> Iterator[tuple[T, Fetched | None]]:
        """Every item with what came of its URL, in order.

        Args:
            items: taken `WINDOW` ahead.
            url_of: the URL of an item, or None where there is nothing to fetch.
        """
        source = iter(items)
        waiting: deque[_Slot[T]] = deque()
        ended = False
        try:
            while True:
                if not ended and len(waiting) <= WINDOW - _REFILL:
                    new = self._slots(islice(source, WINDOW - len(waiting)), url_of)
                    ended = not new
                    waiting.extend(new)
                    self._loop.call_soon_threadsafe(self._start, [s for s in new if s.url])
                if not waiting:
                    return
                yield self._take(waiting.popleft())
        finally:
            if waiting:
                self._loop.call_soon_threadsafe(self._cancel)

    def _slots(self, items: Iterable[T], url_of: Callable[[T], str | None]) -> list[_Slot[T]]:
        slots = []
        for item in items:
            slots.append(_Slot(item, url_of(item), self._next))
            self._next += 1
        return slots

    def _take(self, slot: _Slot[T]) -> tuple[T, Fetched | None]:
        if slot.url:
            self._budget.await_number(slot.number)
            slot.done.wait()
            if slot.error is not None:
                raise slot.error
            if slot.result is not None:
                self._budget.release(len(slot.result.data))
        return slot.item, slot.result

    # What follows runs in the thread of the loop.

    async def _open(self) -> "Client":
        return await self._new_client().__aenter__()

    async def _close(self) -> None:
        self._cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.__aexit__(None, None, None)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _start(self, slots: list[_Slot[T]]) -> None:
        for slot in slots:
            task = self._loop.create_task(self._fetch(slot))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fetch(self, slot: _Slot[T]) -> None:
        gate = self._budget.gate(slot.number)
        try:
            slot.result = await self._client.fetch(slot.url or "", gate)
            gate.settle(len(slot.result.data))
        except asyncio.CancelledError:
            gate.settle(0)
            slot.error = RuntimeError("the fetcher was stopped")
            raise
        # Whatever else happens here is raised where the result is taken.
        except Exception as error:  # noqa: BLE001
            gate.settle(0)
            slot.error = error
        finally:
            slot.done.set()
