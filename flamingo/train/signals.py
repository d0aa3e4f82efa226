"""Signals that ask a run to stop: it finishes the step, saves, and ends with a code that says why.

SIGTERM and SIGUSR1 (what `sbatch --signal=USR1@120` sends) ask for a requeue, Ctrl-C for an end
that the same command goes on from. A second Ctrl-C does not wait for the step. On several ranks
a signal may reach any of them, so the ranks agree after each step.
"""

import signal
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any

from mmdata.errors import EXIT_INTERRUPTED, EXIT_REQUEUE

_REQUEUE = (signal.SIGTERM, signal.SIGUSR1)
_SIGNALS = (*_REQUEUE, signal.SIGINT)


@dataclass(slots=True)
class StopRequest:
    """Within, the signals above set `requested` instead of ending the process.

    Outside the main thread, where Python takes no handlers, nothing changes.

    Attributes:
        requested: exit code that a signal on this rank asked for; 0: none came.
    """

    requested: int = 0
    _before: dict[int, Any] = field(default_factory=dict)

    def __enter__(self) -> "StopRequest":
        try:
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        except ValueError:  # not the main thread: signals are somebody else's
            self._before = {}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def votes(self) -> list[float]:
        """Two numbers for an all-reduce that is made anyway; `decide` takes their sums."""
        return [float(self.requested == code) for code in (EXIT_REQUEUE, EXIT_INTERRUPTED)]

    @staticmethod
    def decide(counts: list[float]) -> int:
        """The exit code, from the sums of all ranks' votes; Ctrl-C wins, a person is there."""
        requeue, interrupted = counts
        if interrupted:
            return EXIT_INTERRUPTED
        return EXIT_REQUEUE if requeue else 0

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number in _REQUEUE:
            self.requested = self.requested or EXIT_REQUEUE
            return
        if self.requested == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        self.requested = EXIT_INTERRUPTED
