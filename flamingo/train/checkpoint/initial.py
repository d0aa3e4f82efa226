"""What `--init-from` names, and what it filled: a table on the console, and in the run's folder."""

import os
import sys
from collections.abc import Callable
from functools import partial

import torch.distributed as dist
from tqdm import tqdm

from flamingo.modules.load_report import LoadReport
from flamingo.options.run import RunOptions
from flamingo.train.checkpoint.trained import weights_of
from mmdata.storage.atomic import write_atomically

REPORT_NAME = "init-from.txt"


def first_weights(path: str | None) -> str | None:
    """What --init-from names: a file, a checkpoint, an export, or a run, which is its latest."""
    return None if path is None else weights_of(path)


def table_of_load(options: RunOptions, weights: str | None) -> Callable[[LoadReport], None] | None:
    """What is to be told of a load of first weights; None where a run goes on."""
    first = first_weights(options.init_from)
    return partial(_keep, options.run_name, first) if first and first == weights else None


def _keep(run: str, first: str, report: LoadReport) -> None:
    if dist.is_available() and dist.is_initialized() and dist.get_rank():
        return  # every rank has loaded the same
    text = f"initial weights: {first}\n{report.text()}\n"
    os.makedirs(run, exist_ok=True)
    write_atomically(os.path.join(run, REPORT_NAME), text.encode())
    tqdm.write(text, file=sys.stdout, end="")
