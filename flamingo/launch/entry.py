"""One rank of a run, or its launcher: what `mmdata train` does, by who started it.

Alone, it trains. With --nproc-per-node it starts this module once a rank. As a rank (of its own
launcher, of torchrun, of SLURM) it trains with the others, gives signs of life, and writes down how
it ended: `flamingo.launch.heartbeat` says what for.
"""

import ctypes
import dataclasses
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager

from flamingo.launch.heartbeat import LAUNCHED, Heartbeat, launch_id, log_path
from flamingo.launch.slurm import slurm_ranks
from flamingo.models.registry import options_of, record_of
from flamingo.options.run import RunOptions
from mmdata.errors import (
    EXIT_CANNOT_START,
    EXIT_DONE,
    EXIT_FINDINGS,
    EXIT_INTERRUPTED,
    MMDataError,
    UserError,
)

#: What gloo, NCCL and torch's store say when another rank does not answer in time, or is gone.
_TIMED_OUT = ("timed out", "timeout", "not connected within")
_BROKEN = ("connection closed by peer", "connection reset", "broken pipe", "connection refused")
#: Words that such an error has beside: any RuntimeError may be about a timeout of its own.
_COLLECTIVE = ("gloo", "nccl", "tcpstore", "socket", "rank", "process group")
_PR_SET_PDEATHSIG = 1


def run_train(options: RunOptions) -> int:
    """Train, launch, or be a rank; returns the exit code.

    Raises:
        MMDataError: alone or as the launcher; a rank tells of its errors itself.
    """
    if options.estimate:
        from flamingo.memory.estimate import tell_estimate

        sys.stdout.write(tell_estimate(options))
        return EXIT_DONE
    launched = is_rank(os.environ)
    if options.nproc_per_node is not None and not options.dry_run:
        if launched:
            raise UserError(
                "--nproc-per-node starts ranks, and this is one (RANK or SLURM_PROCID is set); "
                "leave it out under torchrun and srun"
            )
        launch_ranks(options)
        return EXIT_DONE
    if launched:
        return be_rank(options)
    from flamingo.launch.run import summary, train

    result = train(options)
    sys.stdout.write(summary(result))
    return result.exit_code


def is_rank(environ: MutableMapping[str, str]) -> bool:
    """Whether torchrun, srun or the own launcher started this process.

    SLURM's variables are translated to torchrun's, which the trainer reads.
    """
    if "RANK" not in environ:
        environ.update(slurm_ranks(environ) or {})
    return "RANK" in environ


def launch_ranks(options: RunOptions) -> None:
    """Start the ranks of this node and wait for them.

    Raises:
        UserError: the numbers make no sense.
        RanksFailedError: the ranks did not finish.
    """
    with _quiet_torch():
        from flamingo.launch.launcher import Launch, launch, number_of_nodes, number_of_ranks

    least, most = number_of_nodes(options.nnodes)
    if most > 1 and options.rdzv_endpoint is None:
        raise UserError(
            f"--nnodes {options.nnodes}: expected --rdzv-endpoint HOST:PORT of one of them, the "
            "same on each"
        )
    record = record_of(dataclasses.replace(options, nproc_per_node=None))
    launch(
        [sys.executable, "-m", "flamingo.launch.entry", json.dumps(record)],
        options.run_name,
        Launch(
            nproc=number_of_ranks(str(options.nproc_per_node)),
            min_nodes=least,
            max_nodes=most,
            endpoint=options.rdzv_endpoint,
            max_restarts=options.max_restarts,
        ),
    )


@contextmanager
def _quiet_torch() -> Iterator[None]:
    """Import torch so that its store writes no stacks of C++ to the launcher's terminal.

    The ranks' own warnings stay: they import torch after this.
    """
    name = "TORCH_CPP_LOG_LEVEL"
    is_given = name in os.environ
    os.environ.setdefault(name, "ERROR")
    yield
    if not is_given:
        del os.environ[name]


def be_rank(options: RunOptions) -> int:
    """Train as one of several ranks; returns the exit code, having told why it is not 0."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    heartbeat = Heartbeat(
        options.run_name,
        rank=rank,
        size=size,
        timeout_seconds=options.dist_timeout,
        launch=launch_id(os.environ),
    )
    heartbeat.start()
    own_launcher = LAUNCHED in os.environ
    if own_launcher and rank:
        _write_to(log_path(heartbeat.folder, rank))

    def work() -> int:
        from flamingo.launch.run import summary, train

        result = train(options, mark=heartbeat.mark)
        if rank == 0:
            sys.stdout.write(summary(result))
        return result.exit_code

    exit_code, text = run_as_rank(work, heartbeat)
    # Its launcher shows the one error that counts.
    if text and (rank or not own_launcher):
        sys.stderr.write(f"mmdata: rank {rank}: {text}\n" if rank else f"mmdata: {text}\n")
    return exit_code


def run_as_rank(work: Callable[[], int], heartbeat: Heartbeat) -> tuple[int, str]:
    """Do the work of a rank and end its heartbeat; (exit code, an error that was not shown yet)."""
    try:
        exit_code = work()
    except MMDataError as error:
        heartbeat.end(error.exit_code, "told", str(error))
        return error.exit_code, str(error)
    except KeyboardInterrupt:
        text = "interrupted; run the same command again to go on"
        heartbeat.end(EXIT_INTERRUPTED, "told", text)
        return EXIT_INTERRUPTED, text
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        text = f"{place}{error.strerror or error}"
        heartbeat.end(EXIT_CANNOT_START, "told", text)
        return EXIT_CANNOT_START, text
    except Exception as error:  # noqa: BLE001 - whatever it is, the other ranks have to know
        lost = _how_others_were_lost(error, heartbeat)
        text = lost or f"{type(error).__name__}: {_first_line(error)}"
        if not lost:
            traceback.print_exc()
        heartbeat.end(EXIT_FINDINGS, "lost" if lost else "unexpected", text)
        return EXIT_FINDINGS, text
    heartbeat.end(exit_code, "told" if exit_code else "")
    return exit_code, ""


def _how_others_were_lost(error: Exception, heartbeat: Heartbeat) -> str:
    """Which rank is to blame for an error of a collective; empty for an error of another kind."""
    words = str(error).lower()
    if not isinstance(error, RuntimeError) or not any(word in words for word in _COLLECTIVE):
        return ""
    if any(word in words for word in _TIMED_OUT):
        return f"no answer from the other ranks in time: {heartbeat.waited_for()}"
    if any(word in words for word in _BROKEN):
        gone = heartbeat.gone()
        return f"lost the other ranks: {gone or _first_line(error)}"
    return ""


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")


def _write_to(path: str) -> None:
    """Send all that this process prints, and what its libraries print, to a file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _end_with_the_launcher() -> None:
    """Be asked to end when the launcher is gone, so that a GPU is not held by nobody (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def main(arguments: list[str]) -> int:
    """A rank as its launcher starts it: the options as one JSON object."""
    _end_with_the_launcher()
    return be_rank(options_of(json.loads(arguments[0])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
