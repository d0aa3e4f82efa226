"""A process that saves without an end, killed again and again in the middle of it.

Every weight of the checkpoint of a step is that step's number, so that a mixture would show.
"""

import os
import random
import signal
import sys
import time
from itertools import count

import torch

from flamingo.models.flamingo.model import Flamingo
from flamingo.train.checkpoint.checkpoint import (
    Checkpointer,
    RunState,
    find_checkpoint,
    read_state,
    restore,
)
from flamingo.train.checkpoint.retention import DRAFT_SUFFIX, SaveRule
from tests.flamingo.models.flamingo.tiny_lms import make_flamingo
from tests.flamingo.train.checkpoint.checkpoint_rank import NoTokenizer


def save_for_ever(run: str, model: Flamingo, first: int) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    saver = Checkpointer(run, NoTokenizer(), SaveRule(keep_last=2), asynchronous=True)
    for step in count(first):
        with torch.no_grad():
            for parameter in trained:
                parameter.fill_(step)
        saver.save(model, optimizer, RunState(step=step))


def main(run: str, kills: int) -> None:
    """Kill so many times, each time look at what is left, and go on from it."""
    torch.set_num_threads(1)
    delays = random.Random(7)
    model, step, half_written = make_flamingo("opt"), 0, 0
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            save_for_ever(run, model, step + 1)
        time.sleep(delays.uniform(0.3, 1.0))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        half_written += any(n.endswith(DRAFT_SUFFIX) for n in os.listdir(f"{run}/checkpoints"))
        folder = find_checkpoint(run)
        if folder is None:
            continue  # killed before the first was complete
        found = read_state(folder).step
        assert found >= step, f"{found} after {step}"
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        restore(folder, model, torch.optim.AdamW(trained))
        assert all((parameter == found).all() for parameter in trained), folder
        step = found
    print(step, half_written)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
