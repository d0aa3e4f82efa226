"""The recipes: files for `mmdata train --config`, each complete in itself.

They repeat what they have in common, so that one file says all that a run is. Its first comment
names the recipe that it was made from and every option that it changes of it; a test holds the
file to that. What they leave open is where data lies and what the run is called. They are package
data, so that they are there after an install; `examples/recipes` is a link to them.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmdata.errors import UserError

#: Options of a file, with some changed by `option=value`; of a path and those.
Read = Callable[[str, Sequence[str]], dict[str, Any]]

_FOLDER = Path(__file__).parent / "files"
_ENDING = ".yaml"
BASELINE = "baseline"
#: In the order in which they are listed: the baseline and what changes it, then OpenFlamingo's.
NAMES = (
    *(BASELINE, "smaller-batch", "accumulation", "bf16", "mixed", "sgd", "8-bit"),
    *("checkpointing", "offload", "lora", "qlora", "ddp", "fsdp"),
    *("openflamingo-3b", "openflamingo-3b-instruct", "openflamingo-4b"),
    *("openflamingo-4b-instruct", "openflamingo-9b"),
)


def recipe_path(name: str) -> Path:
    """The file of a recipe.

    Raises:
        UserError: there is none of that name.
    """
    if name not in NAMES:
        raise UserError(f"recipe {name}: expected one of {', '.join(NAMES)}")
    return _FOLDER / f"{name}{_ENDING}"


def title(name: str) -> str:
    """What a recipe is, as its file's first words say."""
    words = []
    for line in recipe_path(name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("# "):
            break
        words.append(line.removeprefix("# "))
    return " ".join(words)


def options_of(name: str) -> dict[str, str]:
    """A recipe's options, values as they are typed in its file: a line each."""
    lines = recipe_path(name).read_text(encoding="utf-8").splitlines()
    pairs = (line.partition(": ") for line in lines if not line.startswith("#"))
    return {option: value.strip('"') for option, _, value in pairs}


def difference(name: str, other: str = BASELINE) -> str:
    """What a recipe changes of another: `option: value, …, without option, …`; empty: nothing."""
    own, others = options_of(name), options_of(other)
    told = [f"{option}: {value}" for option, value in own.items() if others.get(option) != value]
    gone = [option for option in others if option not in own]
    return ", ".join(told + [f"without {option}" for option in gone])


def copy_recipes(names: Sequence[str], folder: str) -> list[Path]:
    """Write recipes' files to a folder; what is there stays.

    Raises:
        UserError: a file of that name is there.
    """
    target = Path(folder)
    wanted = [(recipe_path(name), target / f"{name}{_ENDING}") for name in names]
    there = [str(path) for _, path in wanted if path.exists()]
    if there:
        raise UserError(f"{there[0]}: is there already; name another folder")
    target.mkdir(parents=True, exist_ok=True)
    for source, path in wanted:
        shutil.copyfile(source, path)
    return [path for _, path in wanted]
