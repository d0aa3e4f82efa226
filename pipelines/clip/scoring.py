"""Similarities for a stream of documents, cut into full batches.

Rows of several documents share a batch, so that the model always works on full ones; the
documents come out in order, each with its matrix. Batches are cut within a shard, in its order,
and depend on nothing else. Some batches are in flight while more are prepared: that many, and the
documents that wait for them, are what memory holds. Above `MAX_HELD_BYTES` of waiting documents
the batches at hand are filled up and sent early.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipelines.clip.model import Features, FrontEnd, Pending, Pixels, Tokens, cosines, filled

#: Of the encoded images of documents that wait for their features.
MAX_HELD_BYTES = 256 * 2**20
#: Sentences that are tokenised at once.
_TOKENISED = 256

What = TypeVar("What")


@dataclass(slots=True)
class Item(Generic[What]):
    """A document to be scored.

    Attributes:
        what: comes back with its matrix.
        pixels: its images; taken away when they are on their way.
        texts: its sentences.
        num_bytes: that it holds while it waits.
    """

    what: What
    pixels: list[NDArray[np.uint8]]
    texts: list[str]
    num_bytes: int


class Backend(Protocol):
    """Where features are computed. Batches are full."""

    @property
    def ahead(self) -> int:
        """Batches that may be in flight before their features are waited for."""
        ...

    def image_features(self, pixels: Pixels) -> Pending: ...
    def token_features(self, tokens: Tokens) -> Pending: ...


@dataclass(slots=True)
class _Rows:
    """Rows on their way: cut into full batches, their features handed out in order."""

    send: Callable[[Any], Pending]
    size: int
    ahead: int
    added: int = 0
    sent: int = 0
    resolved: int = 0
    flying: deque[tuple[int, Pending]] = field(default_factory=deque)
    _buffer: list[NDArray[Any]] = field(default_factory=list)
    _ready: deque[Features] = field(default_factory=deque)

    def add(self, rows: Iterable[NDArray[Any]]) -> None:
        """Append rows; full batches leave."""
        for row in rows:
            self._buffer.append(row)
            self.added += 1
            if len(self._buffer) == self.size:
                self.flush()

    def flush(self) -> None:
        """Send what is there, filled up to a full batch."""
        if self._buffer:
            count = len(self._buffer)
            batch = filled(np.stack(self._buffer), self.size)
            self._buffer = []
            if len(self.flying) > self.ahead:  # a document of many rows waits here
                self._resolve()
            self.flying.append((count, self.send(batch)))
            self.sent += count

    def take(self, count: int) -> Features:
        """Features of the next rows, all of which were sent."""
        parts = []
        while count:
            if not self._ready:
                self._resolve()
            head = self._ready.popleft()
            parts.append(head[:count])
            if len(head) > count:
                self._ready.appendleft(head[count:])
            count -= len(parts[-1])
        return np.concatenate(parts)

    def _resolve(self) -> None:
        """Wait for the oldest batch under way."""
        count, pending = self.flying.popleft()
        self._ready.append(pending()[:count])
        self.resolved += count


@dataclass(slots=True)
class _Waiting(Generic[What]):
    what: What
    images: int
    texts: int
    images_end: int
    texts_end: int
    num_bytes: int


class DocumentScorer:
    """Turns items into matrices.

    Attributes:
        images: seen so far.
        sentences: likewise; those of documents without images are not scored.
    """

    def __init__(self, backend: Backend, front: FrontEnd, batch_size: int) -> None:
        self._backend = backend
        self._front = front
        self._images = _Rows(backend.image_features, batch_size, backend.ahead)
        self._texts = _Rows(backend.token_features, batch_size, backend.ahead)

    @property
    def images(self) -> int:
        return self._images.added

    @property
    def sentences(self) -> int:
        return self._texts.added

    def score(self, items: Iterable[Item[What]]) -> Iterator[tuple[What, NDArray[np.float64]]]:
        """Every item's `what` with its (n_images, n_sentences) matrix, in order."""
        waiting: deque[_Waiting[What]] = deque()
        held = 0
        for item in items:
            waiting.append(self._submit(item))
            held += item.num_bytes
            if held > MAX_HELD_BYTES:
                self._flush()
            while waiting and self._is_due(waiting[0], urgent=held > MAX_HELD_BYTES):
                head = waiting.popleft()
                held -= head.num_bytes
                yield head.what, self._matrix(head)
        self._flush()
        while waiting:
            head = waiting.popleft()
            yield head.what, self._matrix(head)

    def _submit(self, item: Item[What]) -> _Waiting[What]:
        images = len(item.pixels)
        texts = len(item.texts)
        if images:
            self._images.add(item.pixels)
            for start in range(0, texts, _TOKENISED):
                self._texts.add(self._front.tokens(item.texts[start : start + _TOKENISED]))
        item.pixels = []
        return _Waiting(
            item.what, images, texts, self._images.added, self._texts.added, item.num_bytes
        )

    def _flush(self) -> None:
        self._images.flush()
        self._texts.flush()

    def _is_due(self, head: _Waiting[What], *, urgent: bool) -> bool:
        """Whether the oldest document is to be waited for."""
        images, texts = self._images, self._texts
        if head.images_end <= images.resolved and head.texts_end <= texts.resolved:
            return True
        if head.images_end > images.sent or head.texts_end > texts.sent:
            return False
        return urgent or len(images.flying) + len(texts.flying) > self._backend.ahead

    def _matrix(self, head: _Waiting[What]) -> NDArray[np.float64]:
        if not head.images:
            return np.zeros((0, head.texts))
        return cosines(self._images.take(head.images), self._texts.take(head.texts))
