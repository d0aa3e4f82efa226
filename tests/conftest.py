"""What every test shares: the order of tests, what is skipped, and the folder of the sample.

One process runs tests marked `slow` last, so that what is quick to find out is found out first;
those marked `matrix` after them (`make test` leaves them to `make test-matrix`). Several processes
(pytest-xdist, as `make test` starts it) take whole files, so that what a file shares is made once:
those with the most slow tests first, so that none is left to one process at the end. Each process,
and each that a test starts, has one thread for its sums.

Tests marked `gpu` are skipped where torch sees no CUDA device. Hypothesis draws the same examples
everywhere and has no deadline: a busy machine is not a failure.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.object_store import ObjectStore

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("repository", deadline=None, derandomize=True)
settings.load_profile("repository")


def pytest_xdist_auto_num_workers() -> int:
    """Processes of `-n auto`: one more than cores, for while one waits for a Ray to start."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else 2


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests in order; GPU tests run only where there is a GPU."""
    if hasattr(config, "workerinput"):
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: (-slow[item.path], item.path))
    else:
        items.sort(key=lambda item: [bool(item.get_closest_marker(n)) for n in ("matrix", "slow")])
    for_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if for_gpu and not has_gpu():
        for item in for_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def has_gpu() -> bool:
    """Whether torch is installed and sees a CUDA device."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def sample() -> Path:
    """The MMC4 sample: 47 documents in two shards, with `images/`."""
    return ROOT / "examples" / "mmc4"


@pytest.fixture(scope="session")
def object_store() -> Iterator["ObjectStore"]:
    """A server that speaks S3, for the whole session; use `bucket` for a place of one's own."""
    from tests.object_store import running_store

    with running_store() as store:
        yield store


@pytest.fixture
def bucket(object_store: "ObjectStore", request: pytest.FixtureRequest) -> str:
    """The URL of an empty folder in the store."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())
    return f"s3://bucket/{name}"
