"""Plans: even shards within units, a fingerprint of what decides bytes, and what differs."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.errors import UserError
from mmdata.sources.records import Segment
from pipelines.conversion.plan import (
    ConversionPlan,
    PlanInput,
    SegmentScan,
    differences,
    input_names,
    load_plan,
    make_plan,
    save_plan,
)


def entry(name: str, counts: list[int], *, crc: int = 1, members: bool = False) -> PlanInput:
    return PlanInput(
        path=f"/mnt/{name}",
        name=name,
        bytes=100,
        version="5",
        segments=[Segment(f"/mnt/{name}", f"m{k}" if members else "") for k in range(len(counts))],
        scans=[SegmentScan(records=count, crc32=crc) for count in counts],
    )


def plan_for(inputs: list[PlanInput], **more: Any) -> ConversionPlan:
    given_options: dict[str, Any] = {
        "docs_per_shard": 10,
        "num_shards": None,
        "options": {"verify": "decode"},
        "versions": {"pillow": "1"},
    }
    return make_plan("mmc4", inputs, [], **(given_options | more))


counts_of_inputs = st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=4), min_size=1,
                            max_size=5)  # fmt: skip


@given(counts_of_inputs, st.integers(1, 20), st.booleans())
def test_units_and_shards_cover_every_record_once(
    counts: list[list[int]], most: int, members: bool
) -> None:
    inputs = [entry(f"d{k}", part, members=members) for k, part in enumerate(counts)]
    plan = plan_for(inputs, docs_per_shard=most)
    assert plan.num_records == sum(map(sum, counts))
    ordinal = shard = 0
    for unit in plan.units:
        assert (unit.first_ordinal, unit.first_shard) == (ordinal, shard)
        cuts = [unit.cut(k) for k in range(unit.num_shards + 1)]
        assert (cuts[0], cuts[-1]) == (0, unit.num_records)
        sizes = [after - before for before, after in pairwise(cuts)]
        assert all(1 <= size <= most for size in sizes)
        assert max(sizes) - min(sizes) <= 1
        ordinal += unit.num_records
        shard += unit.num_shards
    assert plan.num_shards == shard


def test_records_are_numbered_by_file_and_by_member() -> None:
    plain = plan_for([entry("a.jsonl", [5, 6])])
    assert [unit.first_record for unit in plain.units] == [0, 5]
    zipped = plan_for([entry("a.zip", [5, 6], members=True)])
    assert [unit.first_record for unit in zipped.units] == [0, 0]


@given(counts_of_inputs, st.integers(1, 100))
def test_num_shards_is_the_least_number_of_shards(counts: list[list[int]], wanted: int) -> None:
    inputs = [entry(f"d{k}", part) for k, part in enumerate(counts)]
    total = sum(map(sum, counts))
    if total < wanted:
        with pytest.raises(UserError, match=f"the inputs hold only {total} records"):
            plan_for(inputs, num_shards=wanted, docs_per_shard=1000)
        return
    plan = plan_for(inputs, num_shards=wanted, docs_per_shard=1000)
    assert plan.num_shards >= wanted
    if plan.docs_per_shard < max(map(max, counts)):
        larger = plan_for(inputs, docs_per_shard=plan.docs_per_shard + 1)
        assert larger.num_shards < wanted


BASE = [entry("a", [3]), entry("b", [4])]


@pytest.mark.parametrize(
    ("inputs", "more", "line"),
    [
        (BASE[:1], {}, "input b: gone"),
        ([*BASE, entry("c", [1])], {}, "input c: added"),
        ([entry("a", [3], crc=2), BASE[1]], {}, "input a: its contents changed"),
        (BASE[::-1], {}, "inputs: another order"),
        (BASE, {"options": {"verify": "full"}}, "option verify: was decode, is full"),
        (BASE, {"docs_per_shard": 2}, "option docs_per_shard: was 10, is 2"),
        (BASE, {"versions": {"pillow": "2"}}, "version of pillow: was 1, is 2"),
    ],
)
def test_what_decides_bytes_changes_the_fingerprint_and_is_named(
    inputs: list[PlanInput], more: dict[str, Any], line: str
) -> None:
    before, now = plan_for(BASE), plan_for(inputs, **more)
    assert before.fingerprint != now.fingerprint
    assert differences(before, now) == [line]


def test_mount_paths_and_times_do_not_change_the_fingerprint() -> None:
    moved = [entry("a", [3]), entry("b", [4])]
    for one in moved:
        one.path = "/elsewhere/" + one.name
        one.version = "77"
        one.segments = [Segment(one.path)]
    assert plan_for(moved).fingerprint == plan_for(BASE).fingerprint


def test_a_plan_is_kept_whole(tmp_path: Path) -> None:
    assert load_plan(str(tmp_path)) is None
    plan = plan_for(BASE)
    save_plan(plan, str(tmp_path))
    assert load_plan(str(tmp_path)) == plan


@pytest.mark.parametrize("data", [b"", b"{}", b'{"format_version":', b"\xff"])
def test_a_plan_that_cannot_be_read_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(data)
    with pytest.raises(UserError, match=r"not a plan of this version.*use --overwrite"):
        load_plan(str(tmp_path))


def test_an_output_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be used as output: Not a directory"):
        load_plan(str(tmp_path / "out"))


def test_inputs_are_named_from_their_common_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert input_names([]) == []
    assert input_names(["/a/x.zip"]) == ["x.zip"]
    assert input_names(["/a/b/x.zip", "/a/c/x.zip"]) == ["b/x.zip", "c/x.zip"]
    assert input_names(["x.zip", f"{tmp_path}/sub/../y.zip"]) == ["x.zip", "y.zip"]


def test_an_empty_input_needs_no_unit() -> None:
    plan = plan_for([entry("a", [0]), entry("b", [2])])
    assert [unit.file for unit in plan.units] == ["b"]
    assert plan.units[0].first_shard == 0
