"""The line of an interval, and how long is left."""

import pytest

from flamingo.telemetry.console import Console, duration

INTERVAL = {
    "steps": 10,
    "losses": {"web": 2.3456, "pairs": 3.1},
    "learning_rate": 1e-4,
    "gradient_norm": 0.5,
    "samples_per_second": 48.0,
    "tokens_per_second": 12345.6,
    "data_share": 0.02,
    "skipped": 0,
    "bad_samples": 0,
}


def test_an_interval_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(total_steps=10, done=0)
    console.write(10, INTERVAL)
    console.close()
    assert capsys.readouterr().out == (
        "step     10  loss web 2.3456  pairs 3.1000 (mean of 10 steps)  lr 1.00e-04  |grad| 0.500  "
        "48.0 samples/s  12,346 tokens/s  wait 2%\n"
    )


def test_what_is_unusual_is_added_and_only_then(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(total_steps=10, done=0)
    console.write(
        10, INTERVAL | {"mfu": 0.412, "mfu_with_padding": 0.45, "skipped": 2, "bad_samples": 3}
    )
    console.close()
    assert "MFU 41.2% (45.0% with padding)  skipped 2  damaged samples 3" in capsys.readouterr().out


def test_the_time_that_is_left_goes_by_the_steps_of_this_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("flamingo.telemetry.console.time.monotonic", lambda: clock[0])
    console = Console(total_steps=1000, done=900)
    clock[0] += 60
    console.write(920, INTERVAL)  # 20 steps a minute, 80 to go
    console.close()
    assert capsys.readouterr().out.endswith("left 0:04:00\n")


def test_ranks_that_are_not_the_first_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(total_steps=10, done=0, silent=True)
    console.say("here")
    console.write(5, INTERVAL)
    console.close()
    assert capsys.readouterr() == ("", "")


def test_a_measurement_is_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(total_steps=10, done=0)
    console.write(5, {"validation": {"losses": {"val": 2.0}, "perplexity": {"val": 7.389}}})
    console.close()
    assert capsys.readouterr().out == "step      5  validation loss val 2.0000\n"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0:00:00"), (3725, "1:02:05"), (180_000, "2d 02:00:00")]
)
def test_durations_are_read_at_a_glance(seconds: float, words: str) -> None:
    assert duration(seconds) == words
