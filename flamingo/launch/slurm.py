"""What SLURM's variables say about the ranks of a step: pure functions of the environment.

Only a task that `srun` started is a rank. A batch script has SLURM_PROCID and SLURM_NTASKS too, so
those alone say nothing: a trainer that took them at their word would wait for ranks that nobody
starts.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import product

from mmdata.errors import UserError

_BRACKETS = re.compile(r"\[([^\]]*)\]")
_COUNT = re.compile(r"(\d+)(?:\(x(\d+)\))?")
#: Ports that job ids are spread over: above the registered ones, below Linux's ephemeral range.
_FIRST_PORT, _NUM_PORTS = 15_000, 15_000


def slurm_ranks(environ: Mapping[str, str]) -> dict[str, str] | None:
    """The variables that torchrun would set (RANK, WORLD_SIZE, MASTER_ADDR, …) for a task of srun.

    None outside a step, and in a step of one task. MASTER_ADDR and MASTER_PORT stay as they are
    where they are set.

    Raises:
        UserError: a variable of SLURM's is missing or not of its form.
    """
    size = environ.get("SLURM_STEP_NUM_TASKS")
    if size is None and "SLURM_STEP_ID" in environ:
        size = environ.get("SLURM_NTASKS")
    if size is None or "SLURM_PROCID" not in environ or _number(environ, size) == 1:
        return None
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST") or ""
    # Rank 0 is on the first node of the step; where srun was called may be a login node.
    first = next(expand_nodes(nodes), None) or environ.get("SLURM_LAUNCH_NODE_IPADDR")
    address = environ.get("MASTER_ADDR") or first
    if not address:
        raise UserError("SLURM names no node (SLURM_STEP_NODELIST is not set): set MASTER_ADDR")
    return {
        "RANK": environ["SLURM_PROCID"],
        "WORLD_SIZE": size,
        "LOCAL_RANK": environ.get("SLURM_LOCALID", "0"),
        "LOCAL_WORLD_SIZE": str(_tasks_of_node(environ)),
        "MASTER_ADDR": address,
        "MASTER_PORT": environ.get("MASTER_PORT") or str(_port(environ)),
    }


def expand_nodes(nodelist: str) -> Iterator[str]:
    """The nodes of a SLURM list, in order: `gpu[01-02,7],login` is gpu01, gpu02, gpu7, login.

    Raises:
        UserError: not a list of SLURM's.
    """
    for entry in _split(nodelist):
        parts = _BRACKETS.split(entry)  # text, ranges, text, ranges, …, text
        choices = [
            list(_numbers(part, nodelist)) if index % 2 else [part]
            for index, part in enumerate(parts)
        ]
        for names in product(*choices):
            yield "".join(names)


def expand_counts(counts: str) -> list[int]:
    """The numbers of a SLURM list of counts: `4(x2),3` is 4, 4, 3.

    Raises:
        UserError: not a list of SLURM's.
    """
    found: list[int] = []
    for entry in counts.split(","):
        match = _COUNT.fullmatch(entry)
        if match is None:
            raise UserError(f"SLURM's tasks per node {counts!r}: expected the form 4(x2),3")
        found += [int(match[1])] * int(match[2] or 1)
    return found


def _split(nodelist: str) -> Iterator[str]:
    """The entries between commas that stand outside brackets."""
    if nodelist.count("[") != nodelist.count("]") or re.search(r"\[[^\]]*\[", nodelist):
        raise UserError(f"SLURM's node list {nodelist!r}: brackets do not match")
    for entry in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodelist):
        yield entry.strip()


def _numbers(ranges: str, nodelist: str) -> Iterator[str]:
    """`001-003,7` as 001, 002, 003, 7: zeros in front stay."""
    for part in ranges.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UserError(f"SLURM's node list {nodelist!r}: expected numbers in brackets")
        for number in range(int(first), int(last or first) + 1):
            yield str(number).zfill(len(first))


def _tasks_of_node(environ: Mapping[str, str]) -> int:
    """Tasks of this step on this node."""
    counts = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE")
    if counts:
        tasks = expand_counts(counts)
        node = _number(environ, environ.get("SLURM_NODEID", "0"))
        if node < len(tasks):
            return tasks[node]
    return _number(environ, environ.get("SLURM_NTASKS_PER_NODE", "1"))


def _port(environ: Mapping[str, str]) -> int:
    """A port that every task of the step comes to, and another step hardly ever."""
    job = _number(environ, environ.get("SLURM_JOB_ID", "0"))
    step = environ.get("SLURM_STEP_ID", "0")
    return _FIRST_PORT + (job * 31 + (int(step) if step.isdecimal() else 0)) % _NUM_PORTS


def _number(environ: Mapping[str, str], text: str) -> int:
    if not text.isdecimal():
        names = [name for name, value in environ.items() if value == text]
        raise UserError(f"{', '.join(sorted(names))} {text!r}: expected a number")
    return int(text)
