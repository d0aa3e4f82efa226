"""A run's folder as it is found: whole, cut short, or of somebody else's making."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flamingo.report.record import names_in, number, points, read_run
from mmdata.errors import UserError
from tests.flamingo.report.run_factory import make_run, write


def test_all_files_of_a_run_are_read(tmp_path: Path) -> None:
    record = read_run(str(make_run(tmp_path / "run", steps=60, ranks=2)))
    assert len(record.steps) == 60
    assert list(record.ranks) == [0, 1]
    assert [event["event"] for event in record.events] == ["skipped", "saved", "resumed", "saved"]
    assert record.options["max_steps"] == 60
    assert record.problems == []


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no metrics\.jsonl"):
        read_run(str(tmp_path))
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="holds no step yet"):
        read_run(str(tmp_path))


def test_a_line_that_a_crash_cut_is_no_problem_and_a_broken_one_is_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=20)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 21, "los')
    assert read_run(str(folder)).problems == []
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('\n[1]\n{"step": "x"}\n')
    record = read_run(str(folder))
    assert record.problems == ["metrics.jsonl: 3 lines cannot be read"]
    assert len(record.steps) == 20


def test_ranks_are_those_with_a_number_and_files_of_others_are_left_alone(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=20, ranks=1)
    for name in ("rank-x.jsonl", "rank-1.jsonl.tmp", "wandb-id"):
        (folder / "telemetry" / name).write_text("no json")
    write(folder / "telemetry" / "rank-11.jsonl", [{"step": 1, "time": 2.0}, {"step": 1}])
    record = read_run(str(folder))
    assert list(record.ranks) == [0, 11]
    assert len(record.ranks[11]) == 1  # the other has no time
    assert record.problems == []


@given(st.none() | st.booleans() | st.floats() | st.text() | st.lists(st.floats()))
def test_only_finite_numbers_are_numbers(value: Any) -> None:
    found = number({"a": {"b": value}}, "a", "b")
    is_number = isinstance(value, float) and value - value == 0
    assert found == (value if is_number else None)
    assert number(value, "a") is None


def test_points_come_by_step_and_names_from_mappings_alone() -> None:
    lines = [
        {"step": 2, "losses": {"web": 1.0}},
        {"step": 1, "losses": {"web": 2.0, "pairs": None}},
        {"step": 3, "losses": "web"},
    ]
    assert points(lines, "losses", "web") == [(1, 2.0), (2, 1.0)]
    assert names_in(lines, "losses") == ["pairs", "web"]
