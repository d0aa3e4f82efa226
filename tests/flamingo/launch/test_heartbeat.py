"""A rank that is gone, silent or behind is named by those that wait for it."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flamingo.launch.heartbeat import (
    Heartbeat,
    Sign,
    launch_id,
    log_path,
    name_gone,
    name_waited_for,
    read_signs,
)


def sign(rank: int, **said: object) -> Sign:
    given: dict = {"rank": rank, "host": "gpu1", "pid": 100 + rank, "marks": 21, "step": 7}
    return Sign(**(given | {"doing": "computes"} | said))


def waited_for(*signs: Sign, size: int | None = None) -> str:
    return name_waited_for(signs, size=size or len(signs), silent_seconds=5.0)


def test_a_silent_rank_is_named_with_what_it_did_and_for_how_long() -> None:
    found = waited_for(sign(0), sign(1, age_seconds=63.0, doing="draws its batch"), sign(2))
    assert found == (
        "rank 1 (process 101 on gpu1) has given no sign of life for 63 s; last seen at step 7 "
        "(draws its batch)"
    )


def test_a_rank_that_lives_but_is_behind_is_named() -> None:
    behind = sign(1, marks=20, doing="draws its batch", stuck_seconds=63.0)
    assert waited_for(sign(0), behind) == (
        "rank 1 (process 101 on gpu1) has been at step 7 (draws its batch) for 63 s, and the "
        "others wait for it"
    )


def test_where_all_are_equally_far_no_rank_is_blamed() -> None:
    found = waited_for(sign(0, stuck_seconds=60.0), sign(1, stuck_seconds=60.0))
    assert found.startswith("each of the 2 ranks has been at step 7 (computes) for 60 s: ")


def test_a_rank_that_never_came_is_named_by_its_number() -> None:
    assert waited_for(sign(0), size=3) == (
        "rank 1 has given no sign of life at all; rank 2 has given no sign of life at all"
    )


def test_a_rank_that_ended_by_itself_comes_before_those_that_lost_it() -> None:
    ended = sign(2, exit_code=1, cause="unexpected", text="KeyError: 'x'")
    lost = sign(0, exit_code=1, cause="lost", text="lost the other ranks", age_seconds=9.0)
    assert name_gone([lost, sign(1), ended], size=3, silent_seconds=5.0) == (
        "rank 2 (process 102 on gpu1) ended at step 7 (computes): KeyError: 'x'"
    )


def test_many_silent_ranks_make_one_short_line() -> None:
    found = waited_for(sign(0), *(sign(rank, age_seconds=9.0) for rank in range(1, 64)))
    assert found.count("no sign of life") == 3
    assert found.endswith("; and 60 more")


@given(st.lists(st.tuples(st.integers(0, 99), st.floats(0, 1e4)), min_size=1, max_size=9))
def test_whoever_is_named_as_behind_has_done_the_least(states: list[tuple[int, float]]) -> None:
    signs = [sign(n, marks=m, stuck_seconds=s) for n, (m, s) in enumerate(states)]
    found = waited_for(*signs)
    named = re.match(r"rank (\d+) ", found)
    if named is None:
        assert len({one.marks for one in signs}) == 1
    else:
        assert signs[int(named[1])].marks == min(one.marks for one in signs)


def test_a_pulse_says_what_its_rank_does_until_it_ends(tmp_path: Path) -> None:
    heartbeat = Heartbeat(str(tmp_path), rank=1, size=2, timeout_seconds=60, launch="a")
    heartbeat.start()
    heartbeat.mark(3, "computes")
    deadline = time.monotonic() + 300
    while read_signs(heartbeat.folder)[0].step != 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    (running,) = read_signs(heartbeat.folder, "a")
    assert (running.rank, running.pid, running.step) == (1, os.getpid(), 3)
    assert (running.doing, running.exit_code) == ("computes", None)
    heartbeat.end(2, "told", "no shards")
    (ended,) = read_signs(heartbeat.folder, "a")
    assert (ended.exit_code, ended.cause, ended.text) == (2, "told", "no shards")
    assert os.listdir(heartbeat.folder) == ["rank-1.json"]


def test_signs_of_another_start_do_not_count(tmp_path: Path) -> None:
    for rank, launch in enumerate(("old", "new")):
        heartbeat = Heartbeat(str(tmp_path), rank=rank, size=2, timeout_seconds=60, launch=launch)
        heartbeat.start()
        heartbeat.end(0)
    assert [one.rank for one in read_signs(heartbeat.folder, "new")] == [1]
    assert read_signs(heartbeat.folder, since=time.time() + 60) == []
    restarted = {"TORCHELASTIC_RUN_ID": "a", "TORCHELASTIC_RESTART_COUNT": "1"}
    assert launch_id(restarted) != launch_id(restarted | {"TORCHELASTIC_RESTART_COUNT": "2"})


def test_a_rank_without_progress_says_whom_it_waits_for_and_where_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even where the backend then ends the process without a word."""
    silent = Heartbeat(str(tmp_path), rank=1, size=2, timeout_seconds=60)
    silent.start()
    silent.end(0)
    path = Path(silent.folder, "rank-1.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"exit_code": None, "step": 4}))
    os.utime(path, (time.time() - 30, time.time() - 30))
    waiting = Heartbeat(str(tmp_path), rank=0, size=2, timeout_seconds=1.0)
    waiting.start()
    waiting.mark(5, "computes")
    log = Path(log_path(waiting.folder, 0))
    deadline = time.monotonic() + 300
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    waiting.end(1, "lost")
    told = capsys.readouterr().err
    assert re.match(r"mmdata: no progress on rank 0 for \d s: rank 1 \(.*\) has given no", told)
    assert told.count("\n") == 1
    assert "test_heartbeat.py" in log.read_text()
    assert "last seen at step 4" in read_signs(waiting.folder)[0].finding


WAITS_IN_A_THREAD = """
import sys, time
from flamingo.launch import heartbeat
heartbeat._GRACE_SECONDS = 0.5
for rank in range(int(sys.argv[2])):
    one = heartbeat.Heartbeat(sys.argv[1], rank=rank, size=2, timeout_seconds=1.0)
    one.start()
    one.mark(5, "computes")
time.sleep(float(sys.argv[3]))
"""


@pytest.mark.parametrize(("num_ranks", "exit_code"), [(1, 1), (2, 0)])
def test_a_rank_that_waits_in_vain_and_does_not_end_is_ended(
    tmp_path: Path, num_ranks: int, exit_code: int
) -> None:
    """Rank 1 never comes; where it does, and both are equally far, they may be slow, and live."""
    seconds = 600 if exit_code else 4
    done = subprocess.run(
        [sys.executable, "-c", WAITS_IN_A_THREAD, str(tmp_path), str(num_ranks), str(seconds)],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
    )
    assert done.returncode == exit_code, done.stderr
    ended = read_signs(str(tmp_path / "logs"))[0]
    assert ended.exit_code == (exit_code or None)
    assert ended.text == ("rank 1 has given no sign of life at all" if exit_code else "")


def test_what_is_said_again_is_progress_and_no_further_mark(tmp_path: Path) -> None:
    heartbeat = Heartbeat(str(tmp_path), rank=0, size=1, timeout_seconds=60)
    heartbeat.start()
    for step, doing in ((1, "computes"), (1, "measures"), (1, "measures"), (2, "computes")):
        heartbeat.mark(step, doing)
    heartbeat.end(0)
    assert read_signs(heartbeat.folder)[0].marks == 3
