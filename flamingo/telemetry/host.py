"""The machine that a rank runs on: processors, memory of this process and its children, disk."""

import shutil
import time

import psutil


class Host:
    """Readings of this machine; the disk is the one that the run's folder lies on."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._process = psutil.Process()
        psutil.cpu_percent(interval=None)  # the first answer is since the one before: there is none
        self._before = self._disk_bytes()

    def read(self) -> dict[str, float]:
        """`cpu_share` of all cores since the last reading, bytes, and bytes a second."""
        memory = psutil.virtual_memory()
        values = {
            "cpu_share": psutil.cpu_percent(interval=None) / 100,
            "rss_bytes": self._process.memory_info().rss,
            "children_rss_bytes": self._children(),
            "memory_share": memory.percent / 100,
            "disk_free_bytes": shutil.disk_usage(self._folder).free,
        }
        then, now = self._before, self._disk_bytes()
        self._before = now
        if then is not None and now is not None and now[0] > then[0]:
            seconds = now[0] - then[0]
            values["disk_read_bytes_per_second"] = (now[1] - then[1]) / seconds
            values["disk_write_bytes_per_second"] = (now[2] - then[2]) / seconds
        return values

    def _children(self) -> int:
        """Resident bytes of all descendants; one that ends meanwhile counts nothing."""
        total = 0
        for child in self._process.children(recursive=True):
            try:
                total += child.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total

    @staticmethod
    def _disk_bytes() -> tuple[float, int, int] | None:
        """(now, bytes read, bytes written) of all disks; None where the system does not count."""
        counters = psutil.disk_io_counters()
        if counters is None:
            return None
        return time.monotonic(), counters.read_bytes, counters.write_bytes
