"""Which URLs and addresses may be asked at all.

A list of URLs from the web may name anything: `file:///etc/passwd`, a router, a cloud's metadata
service. Only http and https to public addresses are asked. What counts is the address that is
connected to, not the name: names are resolved by `PublicResolver`, which hands on public addresses
only, and these very addresses are connected to and cached, so a name that resolves to something
else a moment later gains nothing. URLs are parsed by yarl, the parser that the client uses itself.
"""

import asyncio
import html
import ipaddress
import re
import socket
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from mmdata.fetch.outcome import FetchError, FetchStatus

_MAX_URL_CHARACTERS = 8192
_ENTITY = re.compile(r"&(?:amp|quot|apos|lt|gt|#\d{1,6}|#[xX][0-9a-fA-F]{1,5});")
_MAX_ESCAPES = 3
_RESOLVER_THREADS = 32
#: How long a name that does not resolve is not asked for again, and how many are remembered.
_NEGATIVE_SECONDS = 60.0
_NEGATIVE_NAMES = 10_000
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class PrivateAddressError(Exception):
    """A host name that stands for no public address."""


class NoSuchHostError(Exception):
    """A host name that does not resolve."""


def check_url(text: str, *, allow_private: bool) -> URL:
    """The URL to ask.

    Raises:
        FetchError: bad-url, or private-address where the host is an address itself.
    """
    text = text.strip()
    if len(text) > _MAX_URL_CHARACTERS:
        raise _bad(f"longer than {_MAX_URL_CHARACTERS} characters")
    if any(char < " " or char in "\\\x7f" for char in text):
        raise _bad("a control character or backslash")
    try:
        url = URL(text)
        port = url.port
    except (ValueError, TypeError) as error:
        raise _bad(str(error)) from None
    if url.scheme not in ("http", "https"):
        raise _bad(f"expected http or https, got {url.scheme[:20] or 'no scheme'}")
    if not url.raw_host or port == 0:
        raise _bad("no host" if not url.raw_host else "port 0")
    if url.raw_user or url.raw_password:
        raise _bad("user name or password in it")
    problem = "" if allow_private else _literal_problem(url.raw_host)
    if problem:
        raise FetchError(FetchStatus.PRIVATE_ADDRESS, problem)
    return url


def unescape_url(text: str) -> str:
    """A URL that was copied from HTML as it was meant: `&amp;` is `&`, however often escaped.

    Only whole entities count: `&copy=1` is a parameter.
    """
    for _ in range(_MAX_ESCAPES):
        plain = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
        if plain == text:
            break
        text = plain
    return text


def _bad(detail: str) -> FetchError:
    return FetchError(FetchStatus.BAD_URL, detail)


def _literal_problem(host: str) -> str:
    """What is wrong with a host that is an address; names are judged when they are resolved."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return ""
    return address_problem(host)


def address_problem(address: str) -> str:
    """Why an address is not asked: empty for public ones.

    IPv4 inside IPv6 (mapped, 6to4, Teredo, NAT64) is judged as the IPv4 that it leads to.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = _embedded(parsed)
        if inner is not None and (problem := address_problem(str(inner))):
            return f"{address} leads to {problem}"
    if parsed.is_loopback:
        return f"{address} (loopback)"
    if parsed.is_link_local:
        return f"{address} (link-local)"
    if parsed.is_multicast or not (parsed.is_global or _is_mapped(parsed)):
        return f"{address} (not a public address)"
    return ""


def _is_mapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """An IPv4-mapped address is what it maps to, which was judged already."""
    return isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address leads to."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


class PublicResolver(AbstractResolver):
    """Names to addresses that may be connected to.

    Args:
        allow_private: hand on every address.
    """

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._pool = ThreadPoolExecutor(_RESOLVER_THREADS, "dns")
        self._failed: OrderedDict[str, tuple[float, str]] = OrderedDict()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host that may be asked.

        Raises:
            NoSuchHostError: it has none.
            PrivateAddressError: it has only such as must not be asked.
        """
        self._refuse_failed(host)
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._pool, _look_up, host, port, family)
        except (OSError, UnicodeError) as error:
            self._remember(host, str(error))
            raise NoSuchHostError(f"{host}: {error}") from error
        if self._allow_private:
            return found
        public = [result for result in found if not address_problem(result["host"])]
        if not public:
            raise PrivateAddressError(f"{host} is {address_problem(found[0]['host'])}")
        return public

    async def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _refuse_failed(self, host: str) -> None:
        until, reason = self._failed.get(host, (0.0, ""))
        if until > time.monotonic():
            raise NoSuchHostError(f"{host}: {reason}")

    def _remember(self, host: str, reason: str) -> None:
        self._failed[host] = (time.monotonic() + _NEGATIVE_SECONDS, reason)
        if len(self._failed) > _NEGATIVE_NAMES:
            self._failed.popitem(last=False)


def _look_up(host: str, port: int, family: int) -> list[ResolveResult]:
    """The system's answer; a list that is not empty."""
    infos = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    results: list[ResolveResult] = []
    for kind, _, protocol, _, address in infos:
        if kind == socket.AF_INET6 and len(address) == 4 and address[3]:
            continue  # an address with a scope is of one link only
        results.append(
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
        )
    if not results:
        raise OSError("no usable address")
    return results


def check_resolved(text: str, *, allow_private: bool) -> None:
    """Check a URL and what its host resolves to now, for a client that resolves by itself.

    Args:
        text: the URL.
        allow_private: whether addresses that are not public may be asked.

    Raises:
        FetchError: bad-url, dns or private-address.
    """
    url = check_url(text, allow_private=allow_private)
    try:
        found = _look_up(url.raw_host or "", url.port or 0, socket.AF_UNSPEC)
    except (OSError, UnicodeError) as error:
        raise FetchError(FetchStatus.DNS, f"{url.raw_host}: {error}") from error
    problems = [address_problem(result["host"]) for result in found]
    if not allow_private and any(problems):
        raise FetchError(FetchStatus.PRIVATE_ADDRESS, f"{url.raw_host} is {max(problems)}")
