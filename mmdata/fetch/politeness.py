"""Not being a burden: turns at a host, waiting when asked to, and what sites say about AI.

Limits are of one worker process: with W workers a host sees up to W times as many requests at
once. Waiting for a turn costs nothing of a URL's own time.
"""

import asyncio
import email.utils
import random
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from mmdata.fetch.outcome import FetchError, FetchStatus

#: Before the first retry; doubles, with up to as much again at random.
_FIRST_BACKOFF_SECONDS = 0.5
_MAX_BACKOFF_SECONDS = 30.0
_NOAI = frozenset(("noai", "noimageai"))
#: Directives with a value of their own, which are not names of robots.
_VALUED = frozenset(("max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"))


def backoff_seconds(attempt: int, draw: float | None = None) -> float:
    """How long to wait after the attempt of this number (from 0); `draw` in [0, 1)."""
    base = min(_FIRST_BACKOFF_SECONDS * 2.0**attempt, _MAX_BACKOFF_SECONDS)
    return base * (1.0 + (random.random() if draw is None else draw))


def parse_retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds that a `Retry-After` header asks for (RFC 9110, 10.2.3); None where it says nothing.

    Args:
        value: of the header.
        now: seconds since 1970.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return max(0.0, date.timestamp() - (time.time() if now is None else now))


def forbids_ai(tags: Iterable[str], robot: str) -> bool:
    """Whether `X-Robots-Tag` headers hold `noai` or `noimageai` for everyone or for us.

    Args:
        tags: the headers' values; `noai`, `noindex, noimageai`, `otherbot: noai`.
        robot: our name, the user agent up to its slash.
    """
    for tag in tags:
        name = ""
        for part in tag.lower().split(","):
            before, colon, after = part.strip().partition(":")
            if colon and before.strip() not in _VALUED:
                name, directive = before.strip(), after.strip()
            else:
                directive = part.strip()
            if directive in _NOAI and name in ("", "*", robot.lower()):
                return True
    return False


@dataclass(slots=True)
class _Host:
    turns: asyncio.Semaphore
    users: int = 0
    not_before: float = field(default=0.0)


class Turns:
    """Who may ask which host when.

    Args:
        per_host: requests to one host at a time.
        max_wait: a host that asks for more seconds of rest is not waited for.
    """

    def __init__(self, per_host: int, max_wait: float) -> None:
        self._per_host = per_host
        self._max_wait = max_wait
        self._hosts: dict[str, _Host] = {}

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """Wait for a turn at a host.

        Raises:
            FetchError: it asked to be left alone for longer than is waited.
        """
        state = self._hosts.get(host)
        if state is None:
            state = self._hosts[host] = _Host(asyncio.Semaphore(self._per_host))
        state.users += 1
        try:
            async with state.turns:
                while (rest := state.not_before - time.monotonic()) > 0:
                    self._refuse_long(host, rest)
                    await asyncio.sleep(rest)
                yield
        finally:
            state.users -= 1
            if not state.users and state.not_before <= time.monotonic():
                self._hosts.pop(host, None)

    def rest(self, host: str, seconds: float) -> None:
        """Leave a host alone for a while, as it asked."""
        state = self._hosts.get(host)
        if state is None:
            state = self._hosts[host] = _Host(asyncio.Semaphore(self._per_host))
        state.not_before = max(state.not_before, time.monotonic() + seconds)

    def _refuse_long(self, host: str, seconds: float) -> None:
        if seconds > self._max_wait:
            raise FetchError(
                FetchStatus.HTTP_ERROR,
                f"{host} asks to be left alone for {seconds:.0f} s more",
                http_status=429,
                retry_after=seconds,
            )
