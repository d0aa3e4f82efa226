"""A stand-in for the module `pynvml`, with answers as boards gave them in NVML's own units.

`board()` is an H100 that answers everything. `refusing=(name, …)` makes functions raise as NVML
does: a GeForce has no ECC, a MIG slice no clocks, and a lost GPU nothing at all.
"""

from types import ModuleType, SimpleNamespace
from typing import Any

UUID = "GPU-5c9d0b57-2f4e-4a5c-9f1e-8d3f6b1a7c20"
CONSTANTS = {
    "NVML_CLOCK_SM": 1,
    "NVML_CLOCK_MEM": 2,
    "NVML_TEMPERATURE_GPU": 0,
    "NVML_MEMORY_ERROR_TYPE_CORRECTED": 0,
    "NVML_MEMORY_ERROR_TYPE_UNCORRECTED": 1,
    "NVML_VOLATILE_ECC": 0,
    "NVML_ERROR_NOT_SUPPORTED": 3,
    "NVML_ERROR_NO_PERMISSION": 4,
    "NVML_ERROR_FUNCTION_NOT_FOUND": 13,
    "NVML_ERROR_DRIVER_NOT_LOADED": 9,
    "NVML_ERROR_NOT_FOUND": 6,
    "NVML_ERROR_GPU_IS_LOST": 15,
}
TEXTS = {3: "Not Supported", 6: "Not Found", 9: "Driver Not Loaded", 15: "GPU is lost"}
ANSWERS: dict[str, Any] = {
    "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=97, memory=41),
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(
        total=85520809984, used=61740154880, free=23780655104
    ),
    "nvmlDeviceGetClockInfo": {1: 1755, 2: 2619},
    "nvmlDeviceGetPowerUsage": 643217,
    "nvmlDeviceGetEnforcedPowerLimit": 700000,
    "nvmlDeviceGetTemperature": {0: 61},
    "nvmlDeviceGetTotalEccErrors": {0: 2, 1: 0},
}


class NVMLError(Exception):
    """As pynvml's: `value` is NVML's code."""

    def __init__(self, value: int) -> None:
        super().__init__(TEXTS.get(value, f"code {value}"))
        self.value = value


def board(*, refusing: dict[str, int] | None = None) -> Any:
    """The module; `asked` lists the functions that were called, and `refusing` may be changed."""
    module: Any = ModuleType("pynvml")
    module.__dict__.update(CONSTANTS)
    module.NVMLError = NVMLError
    module.refusing = dict(refusing or {})
    module.asked = []

    def answer(name: str, *arguments: Any) -> Any:
        module.asked.append(name)
        if name in module.refusing:
            raise NVMLError(module.refusing[name])
        value = ANSWERS.get(name)
        return value[arguments[0]] if isinstance(value, dict) else value

    def by_uuid(uuid: str) -> str:
        module.asked.append("nvmlDeviceGetHandleByUUID")
        if uuid != UUID:
            raise NVMLError(module.NVML_ERROR_NOT_FOUND)
        return "handle"

    for name in ANSWERS:
        setattr(module, name, lambda handle, *rest, name=name: answer(name, *rest))
    for name in ("nvmlInit", "nvmlShutdown"):
        setattr(module, name, lambda name=name: answer(name))
    module.nvmlDeviceGetHandleByUUID = by_uuid
    return module
