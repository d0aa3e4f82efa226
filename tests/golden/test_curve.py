"""Training goes as it did: losses to one part in a million, counts and files to the last digit.

The curves are stored for versions and a CPU; `python -m tests.golden.regenerate` adds others.
"""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from tests.golden.sample_runs import differences
from tests.golden.training import RUNS, STORED, curve, key, left_behind, make_world, train

pytestmark = pytest.mark.slow

#: Relative. On one CPU nothing differs; with MKL's code for any CPU losses differ by 1.5e-7, and
#: norms of gradients by 3.6e-7.
TOLERANCE, OF_NORMS = 1e-6, 1e-5


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of every run, by its name."""
    folder = tmp_path_factory.mktemp("golden")
    make_world(folder)
    return {name: train(folder, name) for name in RUNS}


def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", RUNS)
def test_the_curve_is_the_stored_one(name: str, runs: dict[str, Path]) -> None:
    here = key()
    others = [differences(one["key"], here) for one in stored()["curves"]]
    if "" not in others:
        pytest.skip(f"curves are stored for others: {'; or '.join(others)}")
    expected = stored()["curves"][others.index("")]["runs"][name]
    found = curve(runs[name])
    assert found["counted"] == expected["counted"]
    for step, (one, other) in enumerate(zip(found["losses"], expected["losses"], strict=True), 1):
        assert one == pytest.approx(other, rel=TOLERANCE), f"step {step}"
    assert found["gradient_norms"] == pytest.approx(expected["gradient_norms"], rel=OF_NORMS)
    assert list(found["validation"]) == list(expected["validation"])
    for step, losses in expected["validation"].items():
        assert found["validation"][step] == pytest.approx(losses, rel=TOLERANCE), f"step {step}"


@pytest.mark.parametrize("name", RUNS)
def test_a_run_leaves_the_files_and_tensors_of_the_list(name: str, runs: dict[str, Path]) -> None:
    expected, found = stored()["left_behind"][name], left_behind(runs[name])
    assert found["files"] == expected["files"]
    assert found["tensors"] == expected["tensors"]
    assert found["state"] == expected["state"]
    assert found["positions"] == expected["positions"]
