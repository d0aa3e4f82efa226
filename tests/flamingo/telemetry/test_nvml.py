"""What NVML answers, in the units of the log; what it refuses is left out."""

import logging
import sys
from typing import Any

import pytest

from flamingo.telemetry import nvml
from flamingo.telemetry.nvml import Gpu, open_gpu
from mmdata.installation import how_to_install
from tests.flamingo.telemetry.fake_nvml import ANSWERS, CONSTANTS, UUID, board

NOT_SUPPORTED, LOST = CONSTANTS["NVML_ERROR_NOT_SUPPORTED"], CONSTANTS["NVML_ERROR_GPU_IS_LOST"]
WHOLE = {
    "utilization": 0.97,
    "memory_access": 0.41,
    "memory_bytes": 61740154880,
    "memory_share": pytest.approx(0.7219, abs=1e-4),
    "sm_clock_mhz": 1755,
    "memory_clock_mhz": 2619,
    "power_watts": pytest.approx(643.217),
    "power_limit_watts": 700,
    "temperature": 61,
    "ecc_corrected": 2,
    "ecc_uncorrected": 0,
}


def test_a_board_that_answers_everything() -> None:
    gpu = Gpu(board(), "handle")
    assert gpu.name() == "NVIDIA H100 80GB HBM3"
    assert gpu.read() == WHOLE


def test_what_a_board_does_not_support_is_left_out_and_not_asked_again() -> None:
    module = board(refusing={"nvmlDeviceGetTotalEccErrors": NOT_SUPPORTED})
    gpu = Gpu(module, "handle")
    expected = {name: value for name, value in WHOLE.items() if not name.startswith("ecc")}
    assert gpu.read() == expected
    module.asked.clear()
    assert gpu.read() == expected
    assert "nvmlDeviceGetTotalEccErrors" not in module.asked


def test_a_gpu_that_is_lost_is_told_once_and_ends_its_readings(
    caplog: pytest.LogCaptureFixture,
) -> None:
    module = board()
    gpu = Gpu(module, "handle")
    assert gpu.read() == WHOLE
    module.refusing = dict.fromkeys(ANSWERS, LOST)
    with caplog.at_level(logging.WARNING):
        assert gpu.read() == {}
        assert gpu.read() == {}
    assert [record.getMessage() for record in caplog.records] == [
        "the GPU does not answer NVML any more: GPU is lost"
    ]


class TestOpening:
    @pytest.fixture
    def module(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        fake = board()
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        monkeypatch.setattr(nvml, "find_spec", lambda name: name)
        return fake

    def test_a_gpu_is_found_by_its_uuid(self, module: Any) -> None:
        gpu, problem = open_gpu(UUID)
        assert gpu is not None
        assert problem == ""
        gpu.close()
        assert module.asked[-1] == "nvmlShutdown"

    def test_without_a_driver(self, module: Any) -> None:
        module.refusing = {"nvmlInit": CONSTANTS["NVML_ERROR_DRIVER_NOT_LOADED"]}
        assert open_gpu(UUID) == (None, "no GPU values: NVML: Driver Not Loaded")

    def test_a_uuid_that_nvml_does_not_know(self, module: Any) -> None:
        assert open_gpu("GPU-0") == (None, "no GPU values: NVML: GPU-0: Not Found")
        assert module.asked[-1] == "nvmlShutdown"

    def test_without_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nvml, "find_spec", lambda name: None)
        words = f"no GPU values: pynvml is not installed: {how_to_install('nvml')}"
        assert open_gpu(UUID) == (None, words)


def test_the_fake_has_the_names_and_codes_of_the_real_module() -> None:
    real = pytest.importorskip("pynvml")
    for name, value in CONSTANTS.items():
        assert getattr(real, name) == value, name
    for name in (*ANSWERS, "nvmlInit", "nvmlShutdown", "nvmlDeviceGetHandleByUUID"):
        assert callable(getattr(real, name)), name
    assert real.NVMLError(NOT_SUPPORTED).value == NOT_SUPPORTED
