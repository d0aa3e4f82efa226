"""A rank of a toy run: sums over gloo, step after step, until it is told to come to grief.

Arguments: the run's folder, the number of steps, the timeout in seconds, and what goes wrong, for
each start of the ranks: `RANK:STEP:HOW` or `-`.
"""

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from flamingo.launch.entry import is_rank, run_as_rank
from flamingo.launch.heartbeat import Heartbeat, launch_id, log_path
from mmdata.errors import EXIT_REQUEUE, UserError


def come_to_grief(how: str) -> None:
    match how:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "sleep":
            time.sleep(600)
        case "error":
            raise UserError("shard 7: is no shard")
        case "bug":
            raise KeyError("a bug")


def work(folder: str, steps: int, grief: str, heartbeat: Heartbeat) -> int:
    torch.set_num_threads(1)
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    rank, step, how = grief.split(":") if grief != "-" else ("-1", "0", "")
    dist.init_process_group("gloo", timeout=timedelta(seconds=float(sys.argv[3])))
    saved = Path(folder, "saved")
    done = int(saved.read_text()) if saved.exists() else 0
    print(f"rank {dist.get_rank()} of {dist.get_world_size()} goes on from {done}", flush=True)
    for number in range(done + 1, steps + 1):
        heartbeat.mark(number, "draws its batch")
        if int(rank) == dist.get_rank() and int(step) == number:
            come_to_grief(how)
        heartbeat.mark(number, "computes")
        total = torch.tensor([1.0, float(bool(asked))])
        dist.all_reduce(total)
        if dist.get_rank() == 0:
            saved.write_text(str(number))
        if total[1] > 0:
            dist.destroy_process_group()
            print(f"saved step {number}", flush=True)
            return EXIT_REQUEUE
        time.sleep(0.02)
    dist.destroy_process_group()
    return 0


def main() -> int:
    folder, steps, timeout = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    grief = sys.argv[4 + int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))]
    assert is_rank(os.environ)
    rank = int(os.environ["RANK"])
    heartbeat = Heartbeat(
        folder,
        rank=rank,
        size=int(os.environ["WORLD_SIZE"]),
        timeout_seconds=timeout,
        launch=launch_id(os.environ),
    )
    heartbeat.start()
    if rank:
        sys.stdout = sys.stderr = open(log_path(heartbeat.folder, rank), "a")  # noqa: SIM115
    return run_as_rank(lambda: work(folder, steps, grief, heartbeat), heartbeat)[0]


if __name__ == "__main__":
    sys.exit(main())
