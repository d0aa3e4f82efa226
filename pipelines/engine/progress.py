"""The bar of a long job: documents, images and bytes a second, drops, and the time left."""

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

from pipelines.engine.events import Tick


class Progress:
    """A progress bar on stderr; silent when asked, or where nobody looks."""

    def __init__(self, title: str, *, total: int, quiet: bool, unit: str = "doc") -> None:
        self._quiet = quiet
        self._bar = tqdm(
            total=total,
            desc=title,
            unit=unit,
            disable=quiet or not sys.stderr.isatty(),
            dynamic_ncols=True,
            smoothing=0.1,
        )
        self._start = time.monotonic()
        self._images = self._bytes = self._dropped = 0

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def advance(self, tick: Tick) -> None:
        """Count a tick in."""
        self._images += tick.images
        self._bytes += tick.image_bytes
        self._dropped += tick.dropped
        if self._images or self._dropped:
            seconds = max(self.seconds, 1e-9)
            self._bar.set_postfix_str(
                f"{self._images / seconds:.0f} images/s, {self._bytes / seconds / 1e6:.1f} MB/s, "
                f"{self._dropped} dropped",
                refresh=False,
            )
        self._bar.update(tick.records)

    def say(self, text: str) -> None:
        """A line above the bar, also where nobody looks: a log then has it."""
        if not self._quiet:
            self._bar.write(text, file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
