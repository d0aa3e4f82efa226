"""`mmdata recipes`: the memory that each recipe takes on a rank, and whether a GPU has it.

The numbers are those of `mmdata train --estimate`; only the language model's config may come from
our own table. One recipe takes seconds, since a model of its size is built without weights and goes
through a training pass without values, so rows are given as they come.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flamingo.memory.estimate import GB, Estimate, estimate
from flamingo.models.registry import options_of
from flamingo.options.run import RunOptions
from flamingo.recipes.catalogue import BASELINE, Read, difference, recipe_path, title
from flamingo.recipes.language_models import known_language_models, stand_in

#: Categories of an estimate -> columns.
_COLUMNS = {
    "parameters": ("parameters", "buffers"),
    "gradients": ("gradients",),
    "optimizer": ("optimizer", "optimizer's working"),
    "communication": ("communication",),
}
_ACTIVATIONS = "activations"
_HEADS = (*_COLUMNS, _ACTIVATIONS, "  total")
#: CUDA's context, NCCL and the allocator's rounding take up to so much of an estimate more.
_MARGIN = 0.1
_NAME_WIDTH, _FITS_WIDTH = 26, 31
#: Between columns.
_GAP = "  "


@contextmanager
def estimated_options(name: str, read: Read, changes: Sequence[str]) -> Iterator[RunOptions]:
    """A recipe's options as an estimate takes them: no data, no network, no weights.

    Args:
        name: of the recipe.
        read: of its file.
        changes: `option=value`.

    Raises:
        UserError: there is no such recipe or option, or they do not go together.
    """
    values = read(str(recipe_path(name)), changes)
    with stand_in(values["lm_path"]) as lm_path:
        is_stand_in = lm_path != values["lm_path"]
        usual: dict[str, Any] = {"run_name": name, "mmc4_shards": "-", "laion_shards": "-"}
        known = {"lm_path": lm_path, "tokenizer_path": None} if is_stand_in else {}
        yield options_of(usual | values | known | {"estimate": True, "offline": is_stand_in})


def estimate_recipe(name: str, read: Read, changes: Sequence[str] = ()) -> Estimate:
    """The memory that a rank of a recipe's run needs; see `estimated_options` for arguments."""
    with estimated_options(name, read, changes) as options:
        return estimate(options)


def columns(found: Estimate) -> dict[str, int]:
    """Bytes by column at the largest moment of a step."""
    _, parts = found.largest
    made = {
        column: sum(parts.get(part, 0) for part in of_column)
        for column, of_column in _COLUMNS.items()
    }
    named = {part for of_column in _COLUMNS.values() for part in of_column}
    made[_ACTIVATIONS] = sum(number for part, number in parts.items() if part not in named)
    return made


def verdict(total: int, budget_gb: float) -> str:
    """Whether so many bytes fit; `barely` where what no estimate counts may not."""
    budget = budget_gb * GB
    if total > budget:
        return "no"
    return "yes" if total * (1 + _MARGIN) <= budget else "barely"


def list_recipes(
    names: Sequence[str], read: Read, changes: Sequence[str], budget_gb: float
) -> Iterator[str]:
    """The lines of the table, each as soon as it is known."""
    yield "GB of the rank that holds most, at the largest moment of a step (estimated)\n"
    yield _row("recipe", _HEADS, f"fits {budget_gb:g} GB", f"against the {BASELINE}")
    for name in names:
        found = estimate_recipe(name, read, changes)
        numbers = [f"{number / GB:.1f}" for number in [*columns(found).values(), found.total]]
        told = verdict(found.total, budget_gb)
        if found.fixed.optimizer_cpu:
            told += f" (and {found.fixed.optimizer_cpu / GB:.1f} GB of the host)"
        yield _row(name, numbers, told, difference(name))
    yield "\n"
    for name in names:
        yield f"{name:<{_NAME_WIDTH}}{title(name)}\n"
    yield "\nbarely: CUDA's context, NCCL and the allocator's rounding may take what is left.\n"
    models = ", ".join(sorted({name for name in known_language_models()}))
    yield f"Sizes from mmdata's own table, without a look at the hub: {models}\n"
    yield "mmdata recipes --copy-to FOLDER writes the files; mmdata train --config FILE takes one\n"


def _row(name: str, cells: Sequence[str], fits: str, change: str) -> str:
    numbers = (f"{cell:>{len(head)}}" for cell, head in zip(cells, _HEADS, strict=True))
    line = _GAP.join((f"{name:<{_NAME_WIDTH}}", *numbers, f"{fits:<{_FITS_WIDTH}}", change))
    return line.rstrip() + "\n"
