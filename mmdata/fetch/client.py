"""Fetch one URL after another's fashion: safely, politely, with everything bounded.

One session and one TLS context serve a worker for its life (building a context costs 20 ms, which
img2dataset pays for every URL). Redirects are followed here and not by aiohttp, so that each hop
is checked and takes its turn at its host like any other request.
"""

import asyncio
import ssl
import time
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from mmdata.errors import words_of
from mmdata.fetch.addresses import (
    NoSuchHostError,
    PrivateAddressError,
    PublicResolver,
    check_url,
    unescape_url,
)
from mmdata.fetch.body import Room, read_body
from mmdata.fetch.gate import Gate
from mmdata.fetch.outcome import Fetched, FetchError, FetchStatus
from mmdata.fetch.policy import FetchPolicy
from mmdata.fetch.politeness import Turns, backoff_seconds, forbids_ai, parse_retry_after

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_DNS_SECONDS = 300
_HEADERS = {"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
_MAX_HEADER_BYTES = 16 * 1024


class Client:
    """Downloads under one policy; an async context manager, for one event loop.

    Args:
        policy: limits.
    """

    def __init__(self, policy: FetchPolicy) -> None:
        self._policy = policy
        self._turns = Turns(policy.per_host, policy.max_wait)
        self._requests = asyncio.Semaphore(policy.concurrency)
        self._robot = policy.user_agent.partition("/")[0].strip()
        self._resolver = PublicResolver(allow_private=policy.allow_private_hosts)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            limit=0,  # turns and requests are counted here
            resolver=self._resolver,
            ttl_dns_cache=_DNS_SECONDS,
            ssl=ssl.create_default_context(),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS | {"User-Agent": self._policy.user_agent},
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
        await self._resolver.close()

    async def fetch(self, text: str, gate: Gate) -> Fetched:
        """Fetch a URL; whatever goes wrong is the result's status.

        Args:
            text: the URL as the data has it.
            gate: says when it may go on.
        """
        start = time.monotonic()
        result = await self._fetch(text, gate)
        plain = unescape_url(text)
        if plain != text and _is_refused(result):
            before, result = result, await self._fetch(plain, gate)
            result.attempts += before.attempts
            how = "then without HTML's &amp; and the like"
            result.detail = f"{before.http_status} as given, {how}: {result.detail or 'ok'}"
        result.seconds = time.monotonic() - start
        return result

    async def _fetch(self, text: str, gate: Gate) -> Fetched:
        """Fetch a URL as it is written, with attempts where these may help."""
        attempts = 0
        result = Fetched(FetchStatus.BAD_URL)
        try:
            url = check_url(text, allow_private=self._policy.allow_private_hosts)
            for attempts in range(1, self._policy.retries + 2):
                try:
                    data = await self._attempt(url, gate)
                    result = Fetched(FetchStatus.OK, data, 200)
                    break
                except FetchError as error:
                    if not error.is_transient or attempts > self._policy.retries:
                        raise
                    await self._wait(url, attempts, error)
        except FetchError as error:
            result = Fetched(error.status, b"", error.http_status, detail=error.detail)
        result.attempts = attempts
        return result

    async def _wait(self, url: URL, attempts: int, error: FetchError) -> None:
        """Before another attempt; a host that asks for more than is waited ends it."""
        if error.retry_after is not None:
            if error.retry_after > self._policy.max_wait:
                raise error
            return  # its host rests already: the next turn comes after that
        await asyncio.sleep(backoff_seconds(attempts - 1))

    async def _attempt(self, url: URL, gate: Gate) -> bytes:
        """One attempt: the URL and where it redirects to, within the time of an attempt."""
        left = self._policy.timeout
        for _ in range(self._policy.max_redirects + 1):
            host = url.raw_host or ""
            await gate.before()
            async with self._turns.turn(f"{host}:{url.port}"), self._requests:
                gate.active(active=True)
                start = time.monotonic()
                try:
                    found = await self._request(url, left, gate.room)
                finally:
                    gate.active(active=False)
                left -= time.monotonic() - start
            if isinstance(found, bytes):
                return found
            url = found
        raise FetchError(FetchStatus.REDIRECTS, f"more than {self._policy.max_redirects} redirects")

    async def _request(self, url: URL, seconds: float, room: Room) -> bytes | URL:
        """One request: its body, or where it redirects to."""
        if self._session is None:
            raise RuntimeError("a client is used inside its context")
        try:
            async with asyncio.timeout(max(seconds, 0.0)) as deadline:

                async def room_in_time(num_bytes: int) -> None:
                    """Waiting for room here is not the site's fault."""
                    before = time.monotonic()
                    await room(num_bytes)
                    paused = time.monotonic() - before
                    when = deadline.when()
                    if paused > 0.01 and when is not None:
                        deadline.reschedule(when + paused)

                async with self._session.get(url, allow_redirects=False) as response:
                    return await self._answer(url, response, room_in_time)
        except TimeoutError:
            limit = f"not done within {self._policy.timeout:g} s (--timeout)"
            raise FetchError(FetchStatus.TIMEOUT, limit) from None
        except (aiohttp.ClientError, PrivateAddressError, NoSuchHostError, OSError) as error:
            raise _failure(error) from error
        except ValueError as error:  # a URL that the client itself does not take
            raise FetchError(FetchStatus.BAD_URL, words_of(error)[:200]) from error

    async def _answer(self, url: URL, response: aiohttp.ClientResponse, room: Room) -> bytes | URL:
        """What a response means."""
        status = response.status
        if status in _REDIRECTS:
            return self._redirect(url, response)
        if status != 200:
            wait = parse_retry_after(response.headers.get("Retry-After"))
            if wait is not None and status in (429, 503):
                self._turns.rest(f"{url.raw_host}:{url.port}", wait)
            else:
                wait = None
            detail = f"{status} {response.reason or ''}".strip()
            if wait is not None:
                detail += f", Retry-After {wait:.0f} s"
            raise FetchError(
                FetchStatus.HTTP_ERROR, detail[:200], http_status=status, retry_after=wait
            )
        tags = response.headers.getall("X-Robots-Tag", [])
        if not self._policy.ignore_noai and forbids_ai(tags, self._robot):
            detail = f"X-Robots-Tag: {', '.join(tags)[:100]}"
            raise FetchError(FetchStatus.NOAI, detail, http_status=status)
        try:
            return await read_body(response, self._policy.max_bytes, room)
        except FetchError as error:
            error.http_status = status
            raise

    def _redirect(self, url: URL, response: aiohttp.ClientResponse) -> URL:
        """Where a redirect leads, if that may be asked."""
        target = response.headers.get("Location", "")
        try:
            joined = url.join(URL(target)).with_fragment(None)
        except (ValueError, TypeError) as error:
            detail = f"a redirect to {target[:100]!r}: {error}"
            raise FetchError(FetchStatus.REDIRECTS, detail) from None
        try:
            if not target:
                raise FetchError(FetchStatus.REDIRECTS, "no Location")
            return check_url(str(joined), allow_private=self._policy.allow_private_hosts)
        except FetchError as error:
            status = error.status
            if status == FetchStatus.BAD_URL:
                status = FetchStatus.REDIRECTS
            detail = f"a redirect to {target[:100]!r}: {error.detail}"
            raise FetchError(status, detail, http_status=response.status) from None


def _is_refused(result: Fetched) -> bool:
    """Whether a host answered that it does not know, or does not take, the URL as it is."""
    code = result.http_status
    if result.status != FetchStatus.HTTP_ERROR or code is None:
        return False
    return 400 <= code < 500 and code not in (408, 425, 429)


def _failure(error: Exception) -> FetchError:
    """An exception of the client as a status."""
    text = words_of(error)[:200]
    kinds: tuple[tuple[type[Exception] | tuple[type[Exception], ...], FetchStatus], ...] = (
        (PrivateAddressError, FetchStatus.PRIVATE_ADDRESS),
        (NoSuchHostError, FetchStatus.DNS),
        (aiohttp.ClientConnectorDNSError, FetchStatus.DNS),
        (aiohttp.InvalidURL, FetchStatus.BAD_URL),
        ((aiohttp.ClientSSLError, ssl.SSLError), FetchStatus.TLS),
        ((aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError), FetchStatus.CUT_OFF),
        (aiohttp.ClientOSError, FetchStatus.CONNECT),
        (aiohttp.ClientError, FetchStatus.PROTOCOL),
        (OSError, FetchStatus.CONNECT),
    )
    status = next(status for kind, status in kinds if isinstance(error, kind))
    return FetchError(status, text)
