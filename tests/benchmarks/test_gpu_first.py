"""The first checks on a GPU: none stops the others, and a report is there whatever happens."""

import json
from pathlib import Path

import pytest

from benchmarks import gpu_checks, gpu_first, train_gpu
from benchmarks.checks import Check, Row, run_check
from benchmarks.gpu_checks import factor, waits_of_a_step
from benchmarks.gpu_place import Place
from tests.benchmarks import made_up_checks


def test_no_check_stops_the_others_whatever_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is wrong, hangs or dies costs its process, and the next goes on in a fresh one."""
    place = Place(str(tmp_path), pretend=True)
    rows = gpu_first.first_checks(place, made_up_checks.checks_of)
    assert [(row.name, row.verdict, row.detail) for row in rows] == [
        ("good", "passed", "as it should be"),
        ("wrong", "failed", "RuntimeError: two waits in a step, expected one"),
        ("left out", "skipped", "there is no such thing here"),
        ("hangs", "failed", "no answer within 0.5 s: given up"),
        ("good after that", "passed", "as it should be"),
        ("dies", "failed", "its process was ended by SIGSEGV"),
        ("good at last", "passed", "as it should be"),
    ]
    assert capsys.readouterr().out.splitlines() == [row.line() for row in rows]
    assert len({path.suffix for path in tmp_path.glob("*.[0-9]*")}) == 3
    log = (tmp_path / "log.txt").read_text()
    assert log.count("printed by a check") == 3
    assert "Traceback" in log
    told = json.loads((tmp_path / "report.json").read_text())
    assert [one["verdict"] for one in told] == [row.verdict for row in rows]
    page = (tmp_path / "report.html").read_text()
    for row in rows:
        assert row.detail in page
    assert "3 passed, 3 failed, 1 skipped" in page
    assert (tmp_path / "report.txt").read_text().count("\n") == 1 + len(rows)


@pytest.mark.parametrize(("verdict", "code"), [("passed", 0), ("skipped", 0), ("failed", 1)])
def test_the_exit_code_says_whether_one_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, code: int
) -> None:
    rows = [Row("one", "passed", "", 1.0), Row("two", verdict, "why", 1.0)]  # type: ignore[arg-type]
    monkeypatch.setattr(gpu_first, "first_checks", lambda *_: rows)
    monkeypatch.setattr(gpu_first, "_environment", lambda _: {})
    monkeypatch.setattr("sys.argv", ["gpu_first", "--pretend", "--folder", str(tmp_path)])
    assert gpu_first.main() == code


def test_it_is_refused_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="--pretend runs the same code on a pretended one"):
        gpu_first.bench(tmp_path)


def test_what_a_pretended_gpu_cannot_tell_is_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_checks, "lever_rows", lambda _: [{"precision": "bf16-mixed"}])
    place = Place(str(tmp_path), pretend=True)
    checks = {check.name: check for check in gpu_checks.checks_of(place)}
    assert "levers 0: precision=bf16-mixed" in checks
    for name in ("device and NVML agree", "memory, bf16-mixed", "data wait"):
        row = run_check(checks[name])
        assert row.verdict == "skipped"
        assert "pretended GPU" in row.detail


def test_levers_that_cannot_be_had_are_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: Path) -> list[dict[str, object]]:
        raise ImportError("no module named pytest")

    monkeypatch.setattr(gpu_checks, "lever_rows", missing)
    (check,) = [
        one
        for one in gpu_checks.checks_of(Place(str(tmp_path), pretend=True))
        if one.name.startswith("levers")
    ]
    assert run_check(check).detail == "ImportError: no module named pytest"


@pytest.mark.parametrize("waits", [0, 1, 2])
def test_a_step_with_another_number_of_waits_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: int
) -> None:
    monkeypatch.setattr(gpu_checks, "_pretended_waits", lambda *_: ["a.py:1"] * waits)
    monkeypatch.setattr(gpu_checks, "_bench", lambda *_, **__: FakeBench())
    check = Check("waits", 1, lambda: waits_of_a_step(Place(str(tmp_path), pretend=True)))
    assert run_check(check).verdict == ("passed" if waits == 1 else "failed")


@pytest.mark.parametrize(("rate", "verdict"), [(30.0, "passed"), (20.0, "failed")])
def test_the_best_loop_is_compared_with_the_padded_one(
    tmp_path: Path, rate: float, verdict: str
) -> None:
    rates = {train_gpu.PADDED: 10.0, "mmdata": 5.0, "--pack": rate}
    measured = {name: {"samples_per_second": one} for name, one in rates.items()}
    (tmp_path / "measured.json").write_text(json.dumps(measured))
    row = run_check(Check("factor", 1, lambda: factor(Place(str(tmp_path), pretend=False))))
    assert row.verdict == verdict
    assert f"mmdata 0.50, --pack {rate / 10:.2f}" in row.detail


class FakeBench:
    """Trains nothing."""

    def samples(self) -> dict[str, list[object]]:
        return {}

    def trainer(self, _sources: object) -> "FakeBench":
        return self

    def step(self) -> None:
        """Nothing."""
