"""What `--init-from` filled: a table on the console, and in the run's folder."""

import os
import sys
from collections.abc import Callable
from functools import partial

import torch.distributed as dist
from tqdm import tqdm

from flamingo.model.load_report import LoadReport
from mmdata.storage.atomic import write_atomically

REPORT_NAME = "init-from.txt"


def table_of_load(run: str, init_from: str | None) -> Callable[[LoadReport], None] | None:
    """What is to be told of the load of first weights; None where a run goes on."""
    return None if init_from is None else partial(_keep, run, init_from)


def _keep(run: str, init_from: str, report: LoadReport) -> None:
    if dist.is_available() and dist.is_initialized() and dist.get_rank():
        return  # every rank has loaded the same
    text = f"initial weights: {init_from}\n{report.text()}\n"
    os.makedirs(run, exist_ok=True)
    write_atomically(os.path.join(run, REPORT_NAME), text.encode())
    tqdm.write(text, file=sys.stdout, end="")
