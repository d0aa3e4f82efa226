"""Where the first checks on a GPU are made: a real one, or the project's pretended one.

What loads torch is imported where it is used: the report needs none of it.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.checks import SkippedError

if TYPE_CHECKING:
    from flamingo.launch.run import TrainResult
    from flamingo.models.flamingo.options import Train

#: A run of the tests' own tiny models.
TINY: dict[str, Any] = {
    "mmc4_max_tokens": 32,
    "mmc4_max_num_images": 2,
    "workers": 0,
    "max_steps": 2,
    "learning_rate": 0.01,
    "batch_size_mmc4": 2,
}


@dataclass(frozen=True, slots=True)
class Place:
    """A folder, and a GPU.

    Attributes:
        folder: for what the checks make, and the report.
        pretend: whether the GPU is the pretended one of `tests/flamingo/gpu`.
        only: checks are made whose names have this in them.
    """

    folder: str
    pretend: bool
    only: str = ""

    def needs_a_real_gpu(self, why: str) -> None:
        """Leave a check out on the pretended GPU.

        Raises:
            SkippedError: it is that.
        """
        if self.pretend:
            raise SkippedError(why)

    @contextmanager
    def gpu(self, *, saves: bool = True) -> Iterator[Any]:
        """While this lasts there is a GPU.

        Args:
            saves: whether checkpoints are written; the pretended GPU cannot where a model is spread
                over ranks.

        Yields:
            what watches the pretended GPU; None for a real one.
        """
        if not self.pretend:
            yield None
            return
        from tests.flamingo.gpu import pretended_gpu
        from tests.flamingo.gpu.stand_ins import on_the_host
        from tests.flamingo.train.eager import without_compiler

        with ExitStack() as stack:
            watch = stack.enter_context(pretended_gpu())
            stack.enter_context(on_the_host(saves=saves))
            stack.enter_context(without_compiler())
            yield watch

    @property
    def steps_back(self) -> bool:
        """Whether backward passes are what they are, so that second losses can be compared."""
        if not self.pretend:
            return True
        from tests.flamingo.gpu import has_shim

        return has_shim()

    def world(self) -> Any:
        """Folders of the tests' tiny models and shards, made once."""
        from tests.flamingo.conftest import World, make_world
        from tests.flamingo.parallel.test_wrap import make_lm

        folder = Path(self.folder) / "tiny"
        done = folder / "done"
        if not done.exists():
            folder.mkdir(parents=True, exist_ok=True)
            make_world(folder)
            make_lm(folder / "untied")
            done.touch()
        return World(folder / "shards", folder / "captions", folder / "untied", folder / "clip")

    def options(self, name: str, **changes: Any) -> "Train":
        """A tiny run in a folder of its own, which is emptied first unless it is to go on."""
        from tests.flamingo.conftest import options_of_a_run

        folder = Path(self.folder) / "runs" / name
        return options_of_a_run(self.world(), folder, **(TINY | changes))


def losses_of(options: "Train") -> list[float]:
    """Train in this process, and read the losses from the run's log."""
    return losses_and_result(options)[0]


def losses_and_result(options: "Train") -> "tuple[list[float], TrainResult]":
    """Likewise, with what the run says of itself."""
    from flamingo.launch.run import train
    from flamingo.telemetry.jsonl import read_log
    from flamingo.telemetry.names import METRICS_NAME

    result = train(options)
    log = read_log(f"{options.run_name}/{METRICS_NAME}")
    return [line["losses"]["mmc4"] for line in log], result


def lever_rows(folder: Path) -> list[dict[str, Any]]:
    """The options of the tests' covering array: rows that hold every pair of settings.

    It takes half a minute to find them, so they are kept in the folder, and found anew where the
    levers have changed, or a row would be refused today.
    """
    from tests.flamingo.train.covering import covering_rows, settings
    from tests.flamingo.train.test_levers import LEVERS, is_compiled, is_taken

    digest = hashlib.sha256(repr(LEVERS).encode()).hexdigest()
    kept = folder / f"levers-{digest[:12]}.json"
    if kept.exists():
        rows: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))
        if all(map(is_taken, rows)):
            return rows
    rows = [settings(LEVERS, row) for row in covering_rows(LEVERS, is_taken, is_compiled)]
    kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(rows), encoding="utf-8")
    temporary.replace(kept)
    return rows
