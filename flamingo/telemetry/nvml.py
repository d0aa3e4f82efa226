"""One GPU as NVML sees it: load, memory, clocks, power, temperature, memory errors.

A board answers some questions and not others (no ECC on a GeForce, nothing but memory on a MIG
slice): what it does not support is left out of the values, not guessed. Any other error ends the
readings of this GPU with one warning, since a GPU that fell off the bus must not end up as a run
that died of its thermometer.
"""

import logging
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from mmdata.installation import how_to_install

logger = logging.getLogger(__name__)

_MILLI = 1000.0  # NVML tells power in mW


class Gpu:
    """Readings of one GPU: bytes, shares of 1, MHz, W, degrees Celsius, errors since driver start.

    Args:
        nvml: the module `pynvml`, initialised.
        handle: of the GPU.
    """

    def __init__(self, nvml: ModuleType, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        self._questions: dict[str, Callable[[], dict[str, float]]] = {
            "utilization": self._utilization,
            "memory": self._memory,
            "sm_clock": lambda: self._clock("sm_clock_mhz", nvml.NVML_CLOCK_SM),
            "memory_clock": lambda: self._clock("memory_clock_mhz", nvml.NVML_CLOCK_MEM),
            "power": self._power,
            "power_limit": self._power_limit,
            "temperature": self._temperature,
            "corrected": lambda: self._ecc("corrected", nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            "uncorrected": lambda: self._ecc(
                "uncorrected", nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
            ),
        }

    def name(self) -> str:
        """The board's name."""
        return str(self._nvml.nvmlDeviceGetName(self._handle))

    def read(self) -> dict[str, float]:
        """The values that this GPU gives; questions that it does not support are asked once."""
        values: dict[str, float] = {}
        for name, ask in list(self._questions.items()):
            try:
                values |= ask()
            except self._nvml.NVMLError as error:
                if error.value in self._unsupported():
                    del self._questions[name]
                    continue
                logger.warning("the GPU does not answer NVML any more: %s", error)
                self._questions = {}
                break
        return values

    def close(self) -> None:
        """Let the driver go."""
        self._nvml.nvmlShutdown()

    def _unsupported(self) -> tuple[int, ...]:
        nvml = self._nvml
        return (
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_NO_PERMISSION,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        )

    def _utilization(self) -> dict[str, float]:
        rates = self._nvml.nvmlDeviceGetUtilizationRates(self._handle)
        return {"utilization": rates.gpu / 100, "memory_access": rates.memory / 100}

    def _memory(self) -> dict[str, float]:
        found = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        return {"memory_bytes": found.used, "memory_share": found.used / max(1, found.total)}

    def _clock(self, name: str, kind: int) -> dict[str, float]:
        return {name: self._nvml.nvmlDeviceGetClockInfo(self._handle, kind)}

    def _power(self) -> dict[str, float]:
        return {"power_watts": self._nvml.nvmlDeviceGetPowerUsage(self._handle) / _MILLI}

    def _power_limit(self) -> dict[str, float]:
        limit = self._nvml.nvmlDeviceGetEnforcedPowerLimit(self._handle)
        return {"power_limit_watts": limit / _MILLI}

    def _temperature(self) -> dict[str, float]:
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        return {"temperature": self._nvml.nvmlDeviceGetTemperature(self._handle, sensor)}

    def _ecc(self, name: str, kind: int) -> dict[str, float]:
        """Errors since the driver was loaded."""
        nvml = self._nvml
        count = nvml.nvmlDeviceGetTotalEccErrors(self._handle, kind, nvml.NVML_VOLATILE_ECC)
        return {f"ecc_{name}": count}


def open_gpu(uuid: str) -> tuple[Gpu | None, str]:
    """The GPU with this UUID (`GPU-…`, as CUDA and NVML both know it), or None and why.

    By UUID and not by number, since CUDA_VISIBLE_DEVICES renumbers for CUDA but not for NVML.
    """
    if find_spec("pynvml") is None:
        return None, f"no GPU values: pynvml is not installed: {how_to_install('nvml')}"
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return None, f"no GPU values: NVML: {error}"
    try:
        return Gpu(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid)), ""
    except pynvml.NVMLError as error:
        pynvml.nvmlShutdown()
        return None, f"no GPU values: NVML: {uuid}: {error}"
