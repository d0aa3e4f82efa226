"""Read a response's body without trusting what it says of its size or its packing."""

import zlib
from collections.abc import Awaitable, Callable

import aiohttp

from mmdata.errors import words_of
from mmdata.fetch.outcome import FetchError, FetchStatus

#: Asked before every piece that is kept, with the bytes of this body so far.
Room = Callable[[int], Awaitable[None]]
_PACKED = ("gzip", "x-gzip", "deflate")


async def read_body(response: aiohttp.ClientResponse, max_bytes: int, room: Room) -> bytes:
    """The body, unpacked; never more than `max_bytes` is held, packed or unpacked.

    Raises:
        FetchError: too-large, bad-encoding, or cut-off inside a packed body.
        aiohttp.ClientPayloadError: the connection ended too early.
    """
    declared = response.content_length
    if declared is not None and declared > max_bytes:
        raise _too_large(f"{declared} bytes are announced", max_bytes)
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("", "identity", "none"):
        return await _read_plain(response, max_bytes, room)
    if encoding not in _PACKED:
        raise FetchError(FetchStatus.BAD_ENCODING, f"Content-Encoding {encoding[:40]!r}")
    return await _read_packed(response, max_bytes, room)


async def _read_plain(response: aiohttp.ClientResponse, max_bytes: int, room: Room) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > max_bytes:
            raise _too_large("more was sent", max_bytes)
        parts.append(part)
        await room(size)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _read_packed(response: aiohttp.ClientResponse, max_bytes: int, room: Room) -> bytes:
    """gzip or zlib, undone a bounded piece at a time."""
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    parts: list[bytes] = []
    size = packed = 0
    try:
        async for part in response.content.iter_any():
            packed += len(part)
            piece = unpack.decompress(part, max_bytes + 1 - size)
            size += len(piece)
            if max(size, packed) > max_bytes:
                raise _too_large("it unpacks to more", max_bytes)
            parts.append(piece)
            await room(size)
    except zlib.error as error:
        raise FetchError(FetchStatus.BAD_ENCODING, f"damaged gzip: {words_of(error)}") from error
    if not unpack.eof:
        raise FetchError(FetchStatus.CUT_OFF, "the packed body ends early")
    return b"".join(parts)


def _too_large(what: str, max_bytes: int) -> FetchError:
    return FetchError(FetchStatus.TOO_LARGE, f"{what}, at most {max_bytes} are taken (--max-bytes)")
