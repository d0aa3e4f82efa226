"""`--nproc-per-node`: the ranks of this node as processes of torch elastic's agent.

The agent brings nodes together, starts the processes, and starts all of them again when one fails.
What it lacks is added here: it takes 30 s to end a rank that does not react, shows a box of text in
place of an error, knows no error that starting again cannot mend, and gives no exit code but 1.
Each rank writes how it ended (`heartbeat`); the first of them with a reason of its own is what the
user sees, and its exit code is the launcher's.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.rendezvous import RendezvousError, RendezvousParameters, registry

from flamingo.launch.heartbeat import FOLDER, LAUNCHED, Sign, log_path, read_signs
from mmdata.errors import (
    EXIT_DONE,
    EXIT_FINDINGS,
    EXIT_INTERRUPTED,
    EXIT_REQUEUE,
    MMDataError,
    UserError,
)

#: Seconds that ranks have to end by themselves when one of them failed.
_END_SECONDS = 10.0
#: Seconds that ranks have to save when a signal asks; a scheduler's own limit is mostly shorter.
_SAVE_SECONDS = 900
#: Handed on to the ranks, which save and end; those that they do not know as SIGTERM.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


class RanksFailedError(MMDataError):
    """The ranks did not finish; the text and the exit code are those of the rank to blame."""

    def __init__(self, text: str, exit_code: int = EXIT_FINDINGS) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How many ranks to start, and with which other nodes.

    Attributes:
        nproc: ranks on this node.
        min_nodes: the run starts with so many nodes,
        max_nodes: and takes in others up to this.
        endpoint: host:port of the node that brings nodes together; None for one node.
        max_restarts: of all ranks, after one has failed.
    """

    nproc: int
    min_nodes: int = 1
    max_nodes: int = 1
    endpoint: str | None = None
    max_restarts: int = 0


def number_of_ranks(nproc_per_node: str) -> int:
    """Ranks for a node: a number, or `gpu` or `auto`, which stand for the GPUs (auto: at least 1).

    Raises:
        UserError: neither a number nor one of these, or no GPU.
    """
    if nproc_per_node.isdecimal() and int(nproc_per_node) > 0:
        return int(nproc_per_node)
    if nproc_per_node not in ("auto", "gpu"):
        raise UserError(f"--nproc-per-node {nproc_per_node}: expected a number, auto or gpu")
    gpus = torch.cuda.device_count()
    if nproc_per_node == "gpu" and not gpus:
        raise UserError("--nproc-per-node gpu: no GPU is to be seen here")
    return max(gpus, 1)


def number_of_nodes(nnodes: str) -> tuple[int, int]:
    """Nodes at least and at most: `4`, or `2:8`.

    Raises:
        UserError: neither.
    """
    least, colon, most = nnodes.partition(":")
    if least.isdecimal() and (most.isdecimal() or not colon):
        found = int(least), int(most or least)
        if 1 <= found[0] <= found[1]:
            return found
    raise UserError(f"--nnodes {nnodes}: expected a number, or LEAST:MOST")


def launch(command: Sequence[str], run: str, plan: Launch) -> None:
    """Start the ranks of this node, each as a process of `command`, and wait for them.

    Args:
        command: program and arguments; ranks find who they are in torchrun's variables.
        run: the run's folder, where ranks write their signs and logs.
        plan: how many.

    Raises:
        RanksFailedError: they did not finish.
    """
    os.makedirs(os.path.join(run, FOLDER), exist_ok=True)
    started = time.time() - 1.0  # file systems keep times less finely than clocks do
    with _prepared(os.path.join(run, FOLDER), plan):
        agent = _agent(command, run, plan)
        try:
            result: RunResult | None = agent.run()
        except SignalException as asked:
            failure = _after_signal(read_signs(os.path.join(run, FOLDER), since=started), asked)
            if failure is not None:
                raise failure from None
            return
        except (RendezvousError, RuntimeError) as error:
            # The store that brings nodes together says the same by a plain RuntimeError. Where the
            # ranks had met before, how they ended says more.
            signs = read_signs(os.path.join(run, FOLDER), since=started)
            failure, _ = find_cause(signs, {}, os.path.join(run, FOLDER))
            if agent.failure is None and not any(sign.cause for sign in signs):
                place = plan.endpoint or "this node"
                failure = RanksFailedError(f"the nodes do not meet at {place}: {error}")
            raise agent.failure or failure from error
        finally:
            agent.spec.rdzv_handler.shutdown()
    # Without a result another node has closed the meeting point, before or during the run.
    if result is None or result.is_failed():
        raise agent.failure or RanksFailedError("another node ended the run, and says why there")


def find_cause(
    signs: Sequence[Sign], statuses: Mapping[int, int], folder: str
) -> tuple[RanksFailedError, bool]:
    """Why ranks failed, and whether starting them again may help.

    Args:
        signs: the last of each rank, of this start.
        statuses: exit codes of the ranks that ended first, by rank; negative: a signal's number.
        folder: of the logs.
    """
    told = [sign for sign in signs if sign.exit_code and sign.cause == "told"]
    if told:
        first = max(told, key=lambda sign: bool(sign.text))  # the first that has a text
        return RanksFailedError(first.text, first.exit_code or EXIT_FINDINGS), False
    text = (
        next((_unexpected(sign, folder) for sign in signs if sign.cause == "unexpected"), "")
        or _killed(signs, statuses)
        or next((sign.text for sign in signs if sign.cause == "lost"), "")
        or next((_wordless(rank, code, folder) for rank, code in sorted(statuses.items())), "")
    )
    return RanksFailedError(f"{text or 'the ranks failed'}; all ranks were stopped"), True


def _unexpected(sign: Sign, folder: str) -> str:
    log = "above" if sign.rank == 0 else f"in {log_path(folder, sign.rank)}"
    return f"{sign.place} failed {sign.at}: {sign.text} (the traceback stands {log})"


def _killed(signs: Sequence[Sign], statuses: Mapping[int, int]) -> str:
    """The ranks that a signal ended; or whom they waited for, where they aborted themselves."""
    killed = {rank: -code for rank, code in sorted(statuses.items()) if code < 0}
    finding = next((sign.finding for sign in signs if sign.finding), "")
    if finding and set(killed.values()) == {signal.SIGABRT}:  # NCCL's way to give up
        return finding
    known = {sign.rank: sign for sign in signs}
    told = []
    for rank, number in killed.items():
        place, at = (
            (known[rank].place, f", last seen {known[rank].at}")
            if rank in known
            else (f"rank {rank}", "")
        )
        hint = " (as the kernel does when memory is short)" if number == signal.SIGKILL else ""
        told.append(f"{place} was killed by {_signal_name(number)}{hint}{at}")
    return "; ".join(told[:3])


def _wordless(rank: int, code: int, folder: str) -> str:
    return f"rank {rank} ended with exit code {code} and no word; see {log_path(folder, rank)}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _after_signal(signs: Sequence[Sign], asked: SignalException) -> RanksFailedError | None:
    """How the ranks ended when they were asked to; None when they were through with the run."""
    told = [sign for sign in signs if sign.exit_code and sign.cause == "told"]
    if told:
        return find_cause(signs, {}, "")[0]
    if signs and all(sign.exit_code == EXIT_DONE for sign in signs):
        return None
    return RanksFailedError(
        f"stopped by {_signal_name(asked.sigval)} before the ranks could save; run the same "
        "command again to go on from the last save",
        EXIT_REQUEUE if asked.sigval in (signal.SIGTERM, signal.SIGUSR1) else EXIT_INTERRUPTED,
    )


class _Agent(LocalElasticAgent):
    """Ends ranks in time, and knows why they ended."""

    def __init__(self, spec: WorkerSpec, folder: str) -> None:
        # The logs of the ranks are their own business: rank 0 keeps the terminal.
        super().__init__(spec, DefaultLogsSpecs(log_dir=os.devnull), exit_barrier_timeout=60)
        self.spec = spec
        self.failure: RanksFailedError | None = None
        self._folder = folder
        self._asked = False

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        self._started = time.time() - 1.0
        return cast(dict[int, Any], super()._start_workers(worker_group))

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        statuses = _statuses(worker_group)
        first = {rank: code for rank, code in statuses.items() if code}
        if first:
            _end_the_others([worker.id for worker in worker_group.workers])
        result: RunResult = super()._monitor_workers(worker_group)
        if result.is_failed():
            found = first or {rank: one.exitcode for rank, one in result.failures.items()}
            signs = read_signs(self._folder, since=self._started)
            self.failure, may_help = find_cause(signs, found, self._folder)
            if not may_help:
                self._remaining_restarts = 0
            elif self._remaining_restarts:
                number = worker_group.spec.max_restarts - self._remaining_restarts + 1
                _say(f"{self.failure}; restart {number} of {worker_group.spec.max_restarts}")
        return result

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, timeout: int = 30) -> None:
        # Asked once, ranks get the time to save; asked again, they get none.
        patience = 1 if self._asked else _SAVE_SECONDS
        self._asked = self._asked or any(code is None for code in self._codes())
        known = (signal.SIGINT, signal.SIGUSR1)
        super()._shutdown(death_sig if death_sig in known else signal.SIGTERM, patience)

    def _codes(self) -> list[int | None]:
        if self._pcontext is None:
            return []
        return [_status(pid) for pid in self._pcontext.pids().values()]


def _statuses(worker_group: WorkerGroup) -> dict[int, int]:
    """The exit codes of the ranks of this node that have ended, by rank."""
    found = {worker.global_rank: _status(worker.id) for worker in worker_group.workers}
    return {rank: code for rank, code in found.items() if code is not None}


def _status(pid: int) -> int | None:
    """The exit code of a child that is left for another to reap; negative: a signal's number."""
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0  # reaped by the agent, which tells of failures itself
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def _end_the_others(pids: Sequence[int]) -> None:
    """A rank failed: let the others find it out, then end them; also one that is stopped."""
    deadline = time.monotonic() + _END_SECONDS
    while time.monotonic() < deadline and any(_status(pid) is None for pid in pids):
        time.sleep(0.1)
    for pid in pids:
        if _status(pid) is None:
            os.killpg(pid, signal.SIGKILL)  # each leads a session of its own
    while any(_status(pid) is None for pid in pids):
        time.sleep(0.05)


def _agent(command: Sequence[str], run: str, plan: Launch) -> _Agent:
    alone = plan.endpoint is None
    parameters = RendezvousParameters(
        backend="c10d",
        endpoint=plan.endpoint or "localhost:0",
        run_id=f"mmdata-{os.getpid()}" if alone else "mmdata",
        min_nodes=plan.min_nodes,
        max_nodes=plan.max_nodes,
        local_addr="localhost" if alone else None,
    )
    spec = WorkerSpec(
        role="train",
        local_world_size=plan.nproc,
        entrypoint=command[0],
        args=tuple(command[1:]),
        rdzv_handler=registry.get_rendezvous_handler(parameters),
        max_restarts=plan.max_restarts,
        monitor_interval=0.1,
        local_addr=parameters.local_addr,
    )
    return _Agent(spec, os.path.join(run, FOLDER))


@contextmanager
def _prepared(folder: str, plan: Launch) -> Iterator[None]:
    """Signals, variables and logs as the agent and the ranks need them, and back."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    # What is ignored stays so: SIGHUP under nohup.
    taken = [number.name for number, held in handlers.items() if held is not signal.SIG_IGN]
    changes = {
        LAUNCHED: "1",
        "TORCHELASTIC_SIGNALS_TO_HANDLE": ",".join(taken),
        # Else ranks that start again find the addresses of the dead in the store (torch 2.15).
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        # Else every rank takes all cores for itself.
        "OMP_NUM_THREADS": os.environ.get(
            "OMP_NUM_THREADS", str(max(1, (cores or 1) // plan.nproc))
        ),
    }
    before = {name: os.environ.get(name) for name in changes}
    log = logging.FileHandler(os.path.join(folder, "launcher.log"))
    log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("torch.distributed.elastic")
    propagated = logger.propagate
    logger.addHandler(log)
    logger.propagate = False  # the agent's words are for the log, ours for the terminal
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        logger.removeHandler(log)
        logger.propagate = propagated
        log.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    sys.stderr.write(f"mmdata: {text}\n")
    sys.stderr.flush()
