"""One result of each unit, for commands that compute and sum up and write no shards."""

import sys
from collections.abc import Callable, Sequence
from contextlib import closing

from tqdm import tqdm

from pipelines.engine.events import Result, Unit, UnitAgain, UnitDone, UnitFailure, one_step
from pipelines.engine.options import EngineOptions
from pipelines.engine.run_units import choose_workers, run_units


def compute_each(
    compute: Callable[[Unit], Result],
    units: Sequence[Unit],
    options: EngineOptions,
    *,
    seconds: float,
    shards_of: Callable[[Unit], Sequence[str]] | None = None,
    doing: str = "it",
    again: str = "",
) -> list[Result | UnitFailure]:
    """Compute something of each unit.

    Args:
        compute: takes a unit, returns what comes of it.
        units: what to do.
        options: of the command.
        seconds: how long one core would take, roughly.
        shards_of: the shards of a unit, which a bar on standard error counts where that is a
            terminal; None for no bar, and no word of units that are run again.
        doing: what is said to have ended where a unit ends without a result.
        again: what is said of a unit that is run again.

    Returns:
        For each unit its result, or why there is none, in the order of the units.
    """
    sizes = [len(shards_of(unit)) if shards_of else 0 for unit in units]
    ended: list[Result | UnitFailure] = [
        UnitFailure(index, f"{doing} ended without a result", "") for index in range(len(units))
    ]
    events = run_units(
        one_step(compute),
        units,
        workers=choose_workers(options.workers, seconds, options.ray_address),
        ray_address=options.ray_address,
        stall_seconds=options.stall_timeout,
    )
    hidden = shards_of is None or not sys.stderr.isatty()
    bar = tqdm(total=sum(sizes), unit="shard", disable=hidden, file=sys.stderr, leave=False)
    with bar, closing(events):
        for index, event in events:
            if isinstance(event, UnitAgain):
                if shards_of is not None:
                    text = f"{shards_of(units[index])[0]}: {event.detail}; {again}"
                    bar.write(text, file=sys.stderr)
                continue
            if not isinstance(event, UnitDone):
                ended[index] = event
            if isinstance(event, UnitDone | UnitFailure):
                bar.update(sizes[index])
    return ended
