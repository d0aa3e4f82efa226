"""Checks that do what a GPU may do to a process; in a module that imports little."""

import os
import signal
import time
from functools import partial
from pathlib import Path

from benchmarks.checks import Check, SkippedError
from benchmarks.gpu_place import Place


def checks_of(place: Place) -> list[Check]:
    """One of each kind, with a good one behind each that goes wrong."""
    folder = place.folder
    return [
        Check("good", 60, partial(good, folder)),
        Check("wrong", 60, wrong),
        Check("left out", 60, left_out),
        Check("hangs", 0.5, hang),
        Check("good after that", 60, partial(good, folder), is_last=True),
        Check("dies", 60, die),
        Check("good at last", 60, partial(good, folder)),
    ]


def good(folder: str) -> str:
    (Path(folder) / f"{time.monotonic_ns()}.{os.getpid()}").touch()
    print("printed by a check")
    return "as it should be"


def wrong() -> str:
    raise RuntimeError("two waits in a step,\nexpected one")


def left_out() -> str:
    raise SkippedError("there is no such thing here")


def hang() -> str:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    time.sleep(3600)
    return "never"


def die() -> str:
    os.kill(os.getpid(), signal.SIGSEGV)
    return "never"
