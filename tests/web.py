"""A small web in a process of its own, with all that a list of scraped URLs may run into.

`with serve(folder) as web:` gives a server on loopback; `web.url("/ok/1.jpg")` is a URL of it and
`web.asked()` tells which paths were asked for, and how often. Paths:

    /ok/N.jpg, /ok/N.png       picture N (see `tests.corpus.picture`)
    /file/PATH                 a file of the folder
    /slow/SECONDS/N.jpg        the same as /ok, after a while
    /404 /500 /empty /html /json      what it says; /html and /json with status 200
    /flaky/K/N.jpg             500 for the first K requests, then the picture
    /busy/SECONDS/N.jpg        429 with Retry-After the first time, then the picture
    /busy-date/N.jpg           429 with a date 1 s ahead the first time
    /busy-always/SECONDS       429 with Retry-After, always
    /redirect/K/N.jpg          K redirects, then the picture
    /to?URL                    a redirect to that
    /loop                      a redirect to itself
    /endless, /announced       a body without an end; a Content-Length of 1 TB
    /drip                      a byte every 0.1 s
    /cut                       a body that ends before its Content-Length
    /gzip/N.jpg                the picture, with Content-Encoding gzip although not asked for
    /gzip-cut, /gzip-bomb, /gzip-bad, /brotli
    /text/N.jpg                the picture as text/plain
    /noai/TAG                  a picture with that X-Robots-Tag
    /bomb.png                  30,000 x 30,000 pixels in 100 kB
    /garbage, /hang-up         an answer that is no HTTP; none at all
    /agent                     404 with the User-Agent as its reason
    /asked                     the counts, as JSON; /most: most requests at a time
"""

import asyncio
import email.utils
import gzip
import json
import subprocess
import sys
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
BOMB_SIDE = 30_000


@dataclass(frozen=True)
class Web:
    """A running server."""

    port: int
    pid: int

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def asked(self) -> dict[str, int]:
        """How often each path was asked for."""
        with urllib.request.urlopen(self.url("/asked")) as answer:
            counts: dict[str, int] = json.load(answer)
        return counts

    def most(self) -> int:
        """Most requests that were under way at one time."""
        with urllib.request.urlopen(self.url("/most")) as answer:
            return int(answer.read())


@contextmanager
def serve(folder: Path | None = None) -> Iterator[Web]:
    """Start the server, and stop it at the end."""
    command = [sys.executable, "-m", "tests.web", str(folder or ROOT)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Web(int(process.stdout.readline()), process.pid)
    finally:
        process.kill()
        process.communicate()


Write = Callable[[bytes], Awaitable[None]]


class Server:
    """Answers requests, and counts them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: Counter[str] = Counter()
        self.now = self.most = 0
        self.pictures: dict[str, bytes] = {}

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests of one connection, one after the other."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                target = head.split(b" ", 2)[1].decode()
                agent = next(
                    (line[12:] for line in head.decode("latin1").split("\r\n")
                     if line.lower().startswith("user-agent: ")), ""
                )  # fmt: skip
                if not await self.answered(target, agent, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def answered(self, target: str, agent: str, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection stays."""

        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        if target in ("/asked", "/most"):
            counts: object = self.asked if target == "/asked" else self.most
            await write(reply(json.dumps(counts).encode()))
            return True
        self.asked[target] += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self.route(target, agent, write)
        finally:
            self.now -= 1

    async def route(self, target: str, agent: str, write: Write) -> bool:
        first, *rest = target.lstrip("/").partition("?")[0].split("/")
        name = first.replace("-", "_").replace(".", "_")
        streams = getattr(self, f"stream_{name}", None)
        if streams is not None:
            await streams(write)
            return False
        answer = getattr(self, f"get_{name}", None)
        if name in ("404", "500"):
            await write(reply(b"none", int(name)))
        elif name == "to":
            await write(moved(unquote(target.partition("?")[2])))
        elif name == "agent":
            await write(reply(b"", 404, reason=agent))
        elif name == "slow":
            await asyncio.sleep(float(rest[0]))
            await write(reply(self.picture(rest[1])))
        elif answer is None:
            await write(reply(b"no such path", 404))
        else:
            await write(answer(target, *rest))
        return True

    def picture(self, name: str) -> bytes:
        from tests.corpus import picture

        if name not in self.pictures:
            stem, _, ending = name.partition(".")
            kind = {"jpg": "JPEG", "png": "PNG"}[ending]
            self.pictures[name] = picture(int(stem), kind=kind)
        return self.pictures[name]

    def get_ok(self, target: str, name: str) -> bytes:
        return reply(self.picture(name))

    def get_file(self, target: str, *parts: str) -> bytes:
        path = self.folder / unquote("/".join(parts))
        return reply(path.read_bytes()) if path.is_file() else reply(b"", 404)

    def get_empty(self, target: str) -> bytes:
        return reply(b"")

    def get_html(self, target: str) -> bytes:
        return reply(b"<!doctype html><title>gone</title>", headers={"Content-Type": "text/html"})

    def get_json(self, target: str) -> bytes:
        return reply(b'{"error": "gone"}')

    def get_flaky(self, target: str, times: str, name: str) -> bytes:
        return reply(b"", 500) if self.asked[target] <= int(times) else self.get_ok("", name)

    def get_busy(self, target: str, seconds: str, name: str) -> bytes:
        if self.asked[target] == 1:
            return reply(b"", 429, headers={"Retry-After": seconds})
        return self.get_ok("", name)

    def get_busy_date(self, target: str, name: str) -> bytes:
        if self.asked[target] == 1:
            date = email.utils.formatdate(time.time() + 1.5, usegmt=True)
            return reply(b"", 429, headers={"Retry-After": date})
        return self.get_ok("", name)

    def get_busy_always(self, target: str, seconds: str) -> bytes:
        return reply(b"", 429, headers={"Retry-After": seconds})

    def get_redirect(self, target: str, times: str, name: str) -> bytes:
        left = int(times) - 1
        return moved(f"../{left}/{name}" if left else f"/ok/{name}")

    def get_loop(self, target: str) -> bytes:
        return moved("/loop")

    def get_gzip(self, target: str, name: str) -> bytes:
        return reply(gzip.compress(self.picture(name)), headers={"Content-Encoding": "gzip"})

    def get_gzip_cut(self, target: str) -> bytes:
        packed = gzip.compress(self.picture("1.jpg"))
        return reply(packed[: len(packed) // 2], headers={"Content-Encoding": "gzip"})

    def get_gzip_bad(self, target: str) -> bytes:
        return reply(b"\x1f\x8b no gzip", headers={"Content-Encoding": "gzip"})

    def get_gzip_bomb(self, target: str) -> bytes:
        packer = zlib.compressobj(9, wbits=31)
        packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
        return reply(packed, headers={"Content-Encoding": "gzip"})

    def get_brotli(self, target: str) -> bytes:
        return reply(b"brotli?", headers={"Content-Encoding": "br"})

    def get_text(self, target: str, name: str) -> bytes:
        return reply(self.picture(name), headers={"Content-Type": "text/plain"})

    def get_noai(self, target: str, tag: str) -> bytes:
        return reply(self.picture("1.jpg"), headers={"X-Robots-Tag": unquote(tag)})

    def get_bomb_png(self, target: str) -> bytes:
        return reply(bomb())

    async def stream_endless(self, write: Write) -> None:
        await write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            await write(bytes(1 << 16))

    async def stream_announced(self, write: Write) -> None:
        await write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        while True:
            await write(bytes(1 << 16))

    async def stream_drip(self, write: Write) -> None:
        await write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            await write(b"x")
            await asyncio.sleep(0.1)

    async def stream_cut(self, write: Write) -> None:
        await write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")

    async def stream_garbage(self, write: Write) -> None:
        await write(b"220 ftp.example.org ready\r\n\r\n")

    async def stream_hang_up(self, write: Write) -> None:
        return


def bomb() -> bytes:
    """A PNG of one gray row 30,000 times."""
    row = bytes(BOMB_SIDE // 8 + 1)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(BOMB_SIDE)) + packer.flush()
    size = BOMB_SIDE.to_bytes(4, "big")

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body).to_bytes(4, "big")
        return len(body).to_bytes(4, "big") + kind + body + check

    head = size + size + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def reply(
    body: bytes, status: int = 200, *, reason: str = "", headers: dict[str, str] | None = None
) -> bytes:
    """A whole response."""
    lines = [f"HTTP/1.1 {status} {reason or 'OK'}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode("latin1") + body


def moved(target: str) -> bytes:
    """A redirect."""
    return reply(b"moved", 302, headers={"Location": target})


async def main(folder: Path) -> None:
    """Serve on all of loopback (127.0.0.0/8), and print the port."""
    server = await asyncio.start_server(Server(folder).connected, "0.0.0.0", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
