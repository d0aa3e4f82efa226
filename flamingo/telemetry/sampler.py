"""GPU and host sampled by a thread of each rank, into a file of its own.

No rank waits for another to tell its temperature: `telemetry/rank-N.jsonl` is written by rank N
alone, and the report reads them all. A sample takes a few milliseconds every --telemetry-seconds,
beside the step and not in it.
"""

import json
import logging
import os
import threading
import time
from typing import Any

from flamingo.telemetry.host import Host
from flamingo.telemetry.names import TELEMETRY_FOLDER, rank_name
from flamingo.telemetry.nvml import Gpu

logger = logging.getLogger(__name__)


class Sampler:
    """Samples until it is closed; one at the start and one at the end in any case.

    Args:
        folder: of the run.
        rank: of this process, for the file's name.
        seconds: between samples.
        gpu: of this rank; None: none.
        host: of this rank, where it is the first of its host; None: another rank tells it.
        step: that the run is at.

    Attributes:
        step: the last one that was taken; whoever takes steps sets it.
        latest: the last sample.
    """

    def __init__(
        self,
        folder: str,
        *,
        rank: int,
        seconds: float,
        gpu: Gpu | None,
        host: Host | None,
        step: int = 0,
    ) -> None:
        place = os.path.join(folder, TELEMETRY_FOLDER)
        os.makedirs(place, exist_ok=True)
        self.step = step
        self.latest: dict[str, Any] = {}
        self._gpu, self._host, self._seconds = gpu, host, seconds
        self._name = None if gpu is None else gpu.name()
        # Unbuffered: a sample is written whole or not, and closing a full disk's file cannot fail.
        self._file = open(os.path.join(place, rank_name(rank)), "ab", buffering=0)  # noqa: SIM115
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """A last sample, and the end."""
        self._stop.set()
        self._thread.join()
        self._file.close()
        if self._gpu is not None:
            self._gpu.close()

    def _run(self) -> None:
        try:
            while True:
                self._sample()
                if self._stop.wait(self._seconds):
                    break
            self._sample()
        except OSError as error:  # a full disk, most likely; training goes on without this file
            logger.warning("no more samples of GPU and host: %s", error)

    def _sample(self) -> None:
        sample: dict[str, Any] = {"time": round(time.time(), 3), "step": self.step}
        if self._gpu is not None:
            sample |= {"gpu_name": self._name, "gpu": self._gpu.read()}
        if self._host is not None:
            sample["host"] = self._host.read()
        self.latest = sample
        self._file.write(json.dumps(sample).encode() + b"\n")
