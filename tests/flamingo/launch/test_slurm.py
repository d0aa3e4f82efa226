"""A task of srun knows its rank; a batch script, which has some of the variables, is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flamingo.launch.slurm import expand_counts, expand_nodes, slurm_ranks
from mmdata.errors import UserError

STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_STEP_TASKS_PER_NODE": "4,3",
    "SLURM_STEP_NODELIST": "gpu[09-10]",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1",
}


def test_a_task_of_srun_is_a_rank() -> None:
    found = slurm_ranks(STEP)
    assert found is not None
    port = int(found.pop("MASTER_PORT"))
    assert 15_000 <= port < 30_000
    assert found == {
        "RANK": "5",
        "WORLD_SIZE": "7",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "3",
        "MASTER_ADDR": "gpu09",
    }


def test_every_task_of_a_step_comes_to_the_same_port_and_another_step_to_another() -> None:
    ports = [
        (slurm_ranks(STEP | change) or {})["MASTER_PORT"]
        for change in ({}, {"SLURM_PROCID": "0"}, {"SLURM_STEP_ID": "1"}, {"SLURM_JOB_ID": "4712"})
    ]
    assert ports[0] == ports[1]
    assert len(set(ports)) == 3


def test_what_is_set_by_hand_wins() -> None:
    found = slurm_ranks(STEP | {"MASTER_ADDR": "head", "MASTER_PORT": "4444"})
    assert found is not None
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("head", "4444")


def test_a_batch_script_and_a_step_of_one_task_are_no_ranks() -> None:
    batch = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "1"}
    assert slurm_ranks(batch) is None
    assert slurm_ranks(batch | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert slurm_ranks({}) is None


def test_a_variable_that_is_no_number_is_named() -> None:
    with pytest.raises(UserError, match="SLURM_STEP_NUM_TASKS 'seven': expected a number"):
        slurm_ranks(STEP | {"SLURM_STEP_NUM_TASKS": "seven"})
    nowhere = {name: value for name, value in STEP.items() if name.endswith(("ID", "TASKS"))}
    with pytest.raises(UserError, match="set MASTER_ADDR"):
        slurm_ranks(nowhere)


@pytest.mark.parametrize(
    ("nodelist", "nodes"),
    [
        ("login", ["login"]),
        ("node[001-003,7]", ["node001", "node002", "node003", "node7"]),
        ("a[1-2],b,c[5]", ["a1", "a2", "b", "c5"]),
        ("rack[1-2]n[01-02]", ["rack1n01", "rack1n02", "rack2n01", "rack2n02"]),
        ("a-b[09-11]x", ["a-b09x", "a-b10x", "a-b11x"]),
        ("", []),
    ],
)
def test_a_node_list_names_its_nodes(nodelist: str, nodes: list[str]) -> None:
    assert list(expand_nodes(nodelist)) == nodes


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z][a-z-]{0,5}", fullmatch=True),
            st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=3),
            st.integers(1, 4),
        ),
        max_size=4,
    )
)
def test_any_list_of_ranges_expands_to_its_nodes(entries: list) -> None:
    texts, expected = [], []
    for name, ranges, width in entries:
        parts = []
        for first, more in ranges:
            low = str(first).zfill(width)
            parts.append(f"{low}-{first + more:0{len(low)}d}" if more else low)
            expected += [f"{name}{n:0{len(low)}d}" for n in range(first, first + more + 1)]
        texts.append(f"{name}[{','.join(parts)}]" if parts else name)
        expected += [] if parts else [name]
    assert list(expand_nodes(",".join(texts))) == expected


@pytest.mark.parametrize("nodelist", ["node[1-", "node[1-x]", "node[[1]]", "node[]"])
def test_what_is_no_node_list_is_refused(nodelist: str) -> None:
    with pytest.raises(UserError, match="SLURM's node list"):
        list(expand_nodes(nodelist))


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 9)), min_size=1, max_size=5))
def test_any_list_of_counts_expands(runs: list[tuple[int, int]]) -> None:
    text = ",".join(f"{count}(x{times})" if times > 1 else str(count) for count, times in runs)
    assert expand_counts(text) == [count for count, times in runs for _ in range(times)]


def test_what_is_no_list_of_counts_is_refused() -> None:
    with pytest.raises(UserError, match="expected the form"):
        expand_counts("4(y2)")
