"""Which checkpoints are written and stay, and that a crash in between costs none."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flamingo.train.checkpoint import retention
from flamingo.train.checkpoint.retention import (
    SaveRule,
    draft_name,
    publish,
    read_pointer,
    step_of,
    sweep,
)


class TestSaveRule:
    def test_is_due_by_steps_and_by_epochs(self) -> None:
        rule = SaveRule(every_steps=4, every_epoch_steps=6)
        assert [step for step in range(1, 13) if rule.is_due(step)] == [4, 6, 8, 12]
        assert not SaveRule().is_due(4)

    def test_a_loss_is_better_only_when_it_is_lower_and_finite(self) -> None:
        rule = SaveRule(keep_best="web")
        assert rule.is_better({"web": 2.0}, None)
        assert rule.is_better({"web": 1.9}, 2.0)
        assert not rule.is_better({"web": 2.0}, 2.0)
        assert not rule.is_better({"web": float("nan")}, None)
        assert not rule.is_better({"pairs": 1.0}, 2.0)
        assert not SaveRule().is_better({"web": 1.0}, None)

    def test_keeps_the_last_those_at_a_multiple_and_what_is_named(self) -> None:
        rule = SaveRule(keep_last=2, keep_every=4)
        names = [f"step-{step:08d}" for step in range(1, 11)]
        gone = rule.to_remove([*names, "latest"], step=10, named={names[9], names[2]})
        assert sorted(step_of(name) or 0 for name in gone) == [1, 2, 5, 6, 7]

    def test_keeps_all_without_a_number(self) -> None:
        assert SaveRule(keep_best="web").to_remove(["step-00000001"], step=9, named=()) == []

    @given(
        steps=st.sets(st.integers(1, 40), min_size=1),
        now=st.integers(1, 40),
        last=st.integers(1, 5),
        every=st.none() | st.integers(1, 5),
        best=st.integers(1, 40),
    )
    def test_never_removes_what_is_named_new_or_of_a_later_step(
        self, steps: set[int], now: int, last: int, every: int | None, best: int
    ) -> None:
        steps |= {now}
        rule = SaveRule(keep_last=last, keep_every=every)
        named = {f"step-{now:08d}", f"step-{best:08d}"}
        removed = rule.to_remove((f"step-{s:08d}" for s in steps), step=now, named=named)
        gone = {step_of(name) for name in removed}
        past = sorted(step for step in steps if step <= now)
        kept = {*past[-last:], now, best} | {s for s in past if every and s % every == 0}
        assert gone == set(past) - kept


def write(root: Path, step: int, rule: SaveRule | None = None, *, is_best: bool = False) -> str:
    """A checkpoint that consists of one file with its step."""
    draft = root / draft_name(step)
    draft.mkdir(parents=True)
    (draft / "content").write_text(str(step))
    return publish(str(root), str(draft), step=step, is_best=is_best, rule=rule or SaveRule())


def content(root: Path, pointer: str) -> str:
    name = read_pointer(str(root), pointer)
    assert name is not None
    return (root / name / "content").read_text()


class TestPublish:
    def test_names_the_latest_and_the_best(self, tmp_path: Path) -> None:
        rule = SaveRule(keep_last=1)
        write(tmp_path, 1, rule, is_best=True)
        for step in (2, 3):
            write(tmp_path, step, rule)
        assert content(tmp_path, "latest") == "3"
        assert content(tmp_path, "best") == "1"
        assert sorted(os.listdir(tmp_path)) == ["best", "latest", "step-00000001", "step-00000003"]

    def test_a_step_again_never_replaces_what_is_named(self, tmp_path: Path) -> None:
        write(tmp_path, 4)
        assert Path(write(tmp_path, 4)).name == "step-00000004.2"
        assert read_pointer(str(tmp_path), "latest") == "step-00000004.2"
        assert Path(write(tmp_path, 4)).name == "step-00000004"  # nothing names it any more

    def test_keeps_checkpoints_of_later_steps(self, tmp_path: Path) -> None:
        rule = SaveRule(keep_last=1)
        for step in (8, 2, 4):
            write(tmp_path, step, rule)
        assert sorted(os.listdir(tmp_path)) == ["latest", "step-00000004", "step-00000008"]

    @pytest.mark.parametrize("survives", range(8))
    def test_a_crash_at_any_point_leaves_a_whole_latest_and_best(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survives: int
    ) -> None:
        rule = SaveRule(keep_last=1)
        write(tmp_path, 1, rule, is_best=True)
        write(tmp_path, 2, rule)
        left = survives

        def crash_later(operation):
            def run(*arguments, **options):
                nonlocal left
                if left == 0:
                    raise KeyboardInterrupt
                left -= 1
                return operation(*arguments, **options)

            return run

        monkeypatch.setattr(retention.os, "rename", crash_later(os.rename))
        monkeypatch.setattr(retention.shutil, "rmtree", crash_later(shutil.rmtree))
        monkeypatch.setattr(retention, "write_atomically", crash_later(retention.write_atomically))
        try:
            write(tmp_path, 3, rule, is_best=True)
            crashed = False
        except KeyboardInterrupt:
            crashed = True
        assert crashed == (survives < 7)  # a rename, two pointers, twice (rename and remove)
        assert content(tmp_path, "latest") in ("2", "3")
        assert content(tmp_path, "best") in ("1", "3")
        monkeypatch.undo()
        sweep(str(tmp_path))
        assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
        write(tmp_path, 4, rule)
        assert content(tmp_path, "latest") == "4"


class TestSweep:
    def test_removes_drafts_and_nothing_else(self, tmp_path: Path) -> None:
        write(tmp_path, 1)
        (tmp_path / draft_name(2) / "tensors").mkdir(parents=True)
        (tmp_path / "notes.tmp").write_text("mine")
        sweep(str(tmp_path))
        assert sorted(os.listdir(tmp_path)) == ["latest", "notes.tmp", "step-00000001"]
