"""A server of pictures of about 50 kB on loopback, in a process of its own: `/N.jpg` for any N.

Prints its port. With a certificate and its key as arguments it speaks https. 64
different JPEGs take turns; requests are answered from memory, so that it is the client that is
measured.
"""

import asyncio
import io
import ssl
import sys
from typing import cast

import numpy as np
from PIL import Image

_PICTURES = 64
_SIDE = 336
_QUALITY = 82


def pictures() -> list[bytes]:
    """Smooth noise, which compresses like photographs do: 45 to 55 kB."""
    found = []
    for seed in range(_PICTURES):
        noise = np.random.default_rng(seed).normal(128, 60, (_SIDE, _SIDE, 3))
        smooth = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / 3
        sink = io.BytesIO()
        Image.fromarray(smooth.clip(0, 255).astype(np.uint8)).save(sink, "JPEG", quality=_QUALITY)
        found.append(sink.getvalue())
    return found


class Server(asyncio.Protocol):
    """Answers every request of a connection."""

    answers: tuple[bytes, ...] = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            number = int(head.split(b" ", 2)[1].strip(b"/").partition(b".")[0])
            self._transport.write(self.answers[number % len(self.answers)])


async def main() -> None:
    """Serve until killed."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    Server.answers = tuple(head % len(data) + data for data in pictures())
    context = None
    if len(sys.argv) > 1:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1], sys.argv[2])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", 0, ssl=context)
    sizes = sorted(len(answer) for answer in Server.answers)
    print(server.sockets[0].getsockname()[1], sizes[len(sizes) // 2], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
