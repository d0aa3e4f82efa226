"""GPUs over the time that a run ran: pauses cut out, many ranks as one curve, the odd one named."""

from pathlib import Path

from flamingo.report.hardware import Clock, gpus, hosts, memory
from flamingo.report.record import RunRecord, read_run
from tests.flamingo.report.run_factory import START, make_run


def test_a_pause_takes_no_time() -> None:
    times = [START, START + 10, START + 20, START + 4000, START + 4010]
    clock = Clock({0: [{"time": time} for time in times], 1: [{"time": START + 5}]})
    assert [clock.of(time) for time in times] == [0, 10, 20, 20, 30]
    assert clock.starts == [20]


def test_two_gpus_have_a_curve_each_and_eight_have_one_with_the_odd_one_named(
    tmp_path: Path,
) -> None:
    two = gpus(read_run(str(make_run(tmp_path / "two", ranks=2))))
    assert "rank 1 <b>" in two
    assert "Farthest" not in two
    eight = gpus(read_run(str(make_run(tmp_path / "eight", ranks=8))))
    assert "median of 8" in eight
    assert "Farthest from the others: rank 5, 73\u00a0°C on average." in eight


def test_the_limit_of_power_is_drawn(tmp_path: Path) -> None:
    assert "limit 700 W" in gpus(read_run(str(make_run(tmp_path / "run"))))


def test_a_run_on_a_cpu_says_that_it_has_no_gpu_and_shows_its_host(tmp_path: Path) -> None:
    record = read_run(str(make_run(tmp_path / "run", ranks=1, gpu=False)))
    assert "No GPU told anything in this run." in gpus(record)
    assert "Processors in use" in hosts(record)


def test_memory_shows_each_phase_of_the_last_step(tmp_path: Path) -> None:
    text = memory(read_run(str(make_run(tmp_path / "run", steps=40))))
    assert "At step 40" in text
    for words in ("after forward", "optimizer state", "24\u00a0GB", "reserved"):
        assert words in text


def test_a_run_without_memory_says_so() -> None:
    assert "no memory by category" in memory(RunRecord("run"))
