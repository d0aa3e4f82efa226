"""How many bytes of bodies wait in memory, and which downloads may go on meanwhile."""

import asyncio
import threading

from mmdata.fetch.policy import MIB

#: Bodies up to this size never wait.
_SMALL_BODY_BYTES = MIB
_POLL_SECONDS = 0.05


class Budget:
    """Bytes that were received and that nobody has taken.

    Args:
        loop: that the downloads run in.
        max_bytes: above it, only the download that is waited for goes on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, max_bytes: int) -> None:
        self._loop = loop
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._held = 0
        self._awaited = -1
        self._active: set[int] = set()
        self._blocked: dict[int, asyncio.Event] = {}

    def await_number(self, number: int) -> None:
        """From the caller's thread: this download is waited for."""
        self._awaited = number
        if self._blocked:
            self._loop.call_soon_threadsafe(self._unblock)

    def release(self, num_bytes: int) -> None:
        """From the caller's thread: a body was taken."""
        self.hold(-num_bytes)
        if self._blocked and self._held <= self._max_bytes:
            self._loop.call_soon_threadsafe(self._unblock)

    def hold(self, num_bytes: int) -> None:
        """Count bytes that came, or went."""
        with self._lock:
            self._held += num_bytes

    def gate(self, number: int) -> "Gate":
        """For the download of this number."""
        return Gate(self, number)

    def is_over(self, number: int) -> bool:
        """Whether this download has to wait."""
        return self._held > self._max_bytes and number != self._awaited

    async def blocked(self, number: int) -> None:
        """Wait while over the limit; without holding anybody's place."""
        while self.is_over(number):
            event = self._blocked[number] = asyncio.Event()
            if self.is_over(number):  # the caller may have looked before the event was there
                await event.wait()
            self._blocked.pop(number, None)

    async def paused(self, number: int) -> None:
        """Wait inside a body; not while the awaited one may need this one's place."""
        while self.is_over(number) and self._awaited in self._active:
            await asyncio.sleep(_POLL_SECONDS)

    def set_active(self, number: int, *, active: bool) -> None:
        """Whether a request of this download is under way."""
        (self._active.add if active else self._active.discard)(number)

    def _unblock(self) -> None:
        for event in self._blocked.values():
            event.set()


class Gate:
    """One download's view of the budget."""

    def __init__(self, budget: Budget, number: int) -> None:
        self._budget = budget
        self._number = number
        self._counted = 0

    async def before(self) -> None:
        """Waited for before a request takes its turn."""
        await self._budget.blocked(self._number)

    def active(self, *, active: bool) -> None:
        """A request begins or ends."""
        self._budget.set_active(self._number, active=active)

    async def room(self, num_bytes: int) -> None:
        """A body has come this far."""
        self._count(num_bytes)
        if num_bytes > _SMALL_BODY_BYTES:
            await self._budget.paused(self._number)

    def settle(self, num_bytes: int) -> None:
        """The download has ended with a body of this size."""
        self._count(num_bytes)
        self._budget.set_active(self._number, active=False)

    def _count(self, num_bytes: int) -> None:
        self._budget.hold(num_bytes - self._counted)
        self._counted = num_bytes
