"""The benchmark that runs on a GPU, with its small model: a whole step against its estimate."""

import pytest

from benchmarks import training_memory
from benchmarks.training_memory import bench, tiny_kind

MEASURED = ("fp32", "bf16-mixed, checkpointing")


@pytest.mark.slow
@pytest.mark.matrix
def test_the_peak_of_whole_steps_is_within_a_tenth_of_the_estimate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = {name: training_memory.SETTINGS[name] for name in MEASURED}
    monkeypatch.setattr(training_memory, "SETTINGS", chosen)
    gates = bench(tiny_kind())
    assert [gate.name for gate in gates] == [f"memory estimate, {name}" for name in MEASURED]
    assert all(gate.passed for gate in gates), capsys.readouterr().out
