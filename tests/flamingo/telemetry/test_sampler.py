"""Samples of GPU and host: one at the start, one at the end, and between them every so often."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from flamingo.telemetry.host import Host
from flamingo.telemetry.nvml import Gpu
from flamingo.telemetry.sampler import Sampler
from tests.flamingo.telemetry.fake_nvml import board


def samples(folder: Path, rank: int = 0) -> list[dict[str, Any]]:
    path = folder / "telemetry" / f"rank-{rank}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_that_is_over_at_once_has_a_first_and_a_last_sample(tmp_path: Path) -> None:
    sampler = Sampler(
        str(tmp_path), rank=3, seconds=60, gpu=Gpu(board(), "handle"), host=Host(str(tmp_path))
    )
    sampler.close()
    found = samples(tmp_path, rank=3)
    assert len(found) == 2
    for sample in found:
        assert sample["gpu_name"] == "NVIDIA H100 80GB HBM3"
        assert sample["gpu"]["temperature"] == 61
        assert sample["host"]["rss_bytes"] > 1e6
        assert sample["step"] == 0


def test_samples_name_the_step_and_a_resume_goes_on_behind_them(tmp_path: Path) -> None:
    for step in (5, 9):
        sampler = Sampler(str(tmp_path), rank=0, seconds=0.01, gpu=None, host=Host(str(tmp_path)))
        sampler.step = step
        deadline = time.monotonic() + 300
        while sampler.latest.get("step") != step and time.monotonic() < deadline:
            time.sleep(0.005)
        sampler.close()
    steps = [sample["step"] for sample in samples(tmp_path)]
    assert steps[-1] == 9
    assert 5 in steps[: steps.index(9)]
    assert all("gpu" not in sample for sample in samples(tmp_path))


def test_a_full_disk_ends_the_samples_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    (tmp_path / "telemetry").mkdir()
    (tmp_path / "telemetry" / "rank-0.jsonl").symlink_to("/dev/full")
    sampler = Sampler(str(tmp_path), rank=0, seconds=60, gpu=None, host=Host(str(tmp_path)))
    sampler.close()
    assert "no more samples of GPU and host" in caplog.text


def test_the_host_tells_its_memory_disk_and_processors(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    values = host.read()
    assert 0 <= values["cpu_share"] <= 1
    assert values["rss_bytes"] > 1e6
    assert values["children_rss_bytes"] >= 0
    assert values["disk_free_bytes"] > 0
