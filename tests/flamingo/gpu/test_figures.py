"""On a GPU the host reads once a step and waits for no copy, in every combination of levers.

What is stored in `figures.json` is a bound: reads, blocking copies and waits do not rise at all,
kernels and bytes by less than 5%. Without a compiler forward passes and the optimizer are seen,
with one (`matrix`) whole steps. `python -m tests.flamingo.gpu.figures` stores what is true now.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.flamingo.gpu import Watch, cases, figures, has_shim, shim


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return figures.stored()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> cases.Place:
    return cases.make_place(tmp_path_factory.mktemp("place"))


def check(found: dict[str, Any], bound: dict[str, Any], places: dict[str, int]) -> None:
    """Nothing that the host waits for has risen, nor has the device's work."""
    for name in figures.COUNTS:
        assert found[name] <= bound[name], f"{name}: {found[name]}, not {bound[name]}: {places}"
    if figures.versions() == figures.stored()["versions"]:  # others have other operations
        assert found["attention"] == bound["attention"]
        assert figures.risen(found, bound) == []


@pytest.mark.skipif(has_shim(), reason="with the shim backward passes are counted too")
@pytest.mark.parametrize("name", cases.STEPS)
def test_a_step_waits_for_nothing_but_its_one_read(
    name: str, place: cases.Place, stored: dict[str, Any]
) -> None:
    with cases.quiet():
        watch = cases.step(place, name, cases.STEPS[name])
    check(figures.of_watch(watch), stored["steps"][name], figures.places(watch))


@pytest.mark.parametrize("name", cases.TASKS)
def test_tasks_without_training_do_as_stored(
    name: str, place: cases.Place, stored: dict[str, Any]
) -> None:
    with cases.quiet():
        watch = cases.TASKS[name](place)
    check(figures.of_watch(watch), stored["tasks"][name], figures.places(watch))


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.skipif(
    shim.find_compiler() is None, reason="no C compiler: backward passes cannot be pretended"
)
def test_a_whole_step_of_every_combination_of_levers(
    stored: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "rows.json"
    rows = list(stored["rows"].values())
    out.write_text(json.dumps([{"options": row["options"]} for row in rows]))
    assert figures.rerun(tmp_path, "--count", "rows", "--out", str(out)) == 0
    found = json.loads(out.read_text())
    assert found.keys() == stored["rows"].keys()
    wrong = []
    for name, bound in stored["rows"].items():
        try:
            check(found[name], bound, found[name]["places"])
        except AssertionError as error:
            wrong.append(f"{name}: {error}")
    assert wrong == []


def test_what_is_stored_is_what_is_aimed_at(stored: dict[str, Any]) -> None:
    for name, one in (stored["rows"] | stored["steps"]).items():
        assert (one["mixed"], one["blocking"]) == (0, 0), name
        # With parameters on the host FSDP2 waits for each gradient that goes there, and reads it
        # where there is one already.
        if one.get("options", {}).get("cpu_offload") != "params":
            assert (one["reads"], one["waits"]) == (1, 0), name
    for one in stored["tasks"].values():
        assert one["mixed"] == 0
    assert stored["tasks"]["features"]["blocking"] == stored["tasks"]["features"]["reads"] == 0


def test_a_rise_names_the_operations_that_rose() -> None:
    before = {"kernels": {"mm": 90, "add": 10}, "bytes": {"mm": 1000}}
    assert figures.risen(before, before) == []
    more = {"kernels": {"mm": 90, "add": 14, "cat": 2}, "bytes": {"mm": 1049}}
    assert figures.risen(more, before) == ["kernels: 100 -> 106 (add +4, cat +2)"]
    fewer = {"kernels": {"cat": 96}, "bytes": {"mm": 10}}
    assert figures.risen(fewer, before) == []
    watch = Watch()
    watch.kernels["mm"] = 3
    assert figures.of_watch(watch)["kernels"] == {"mm": 3}
