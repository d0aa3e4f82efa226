"""What `mmdata recipes` can be told; the standard library only."""

from dataclasses import dataclass, field
from typing import ClassVar

from mmdata.errors import UserError
from mmdata.option_checks import Options


@dataclass(frozen=True, kw_only=True)
class Recipes(Options):
    """List ready configs for `mmdata train --config` with the memory that they take, or compare
    two."""

    section: ClassVar[str] = "Recipes"

    names: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Recipes to look at; all when none is named."""
    compare: tuple[str, str] | None = None
    """Train with two of them for some steps, and show time, memory and loss side by side."""
    set: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """option=value: an option of `mmdata train` that is to be otherwise; repeat it. --compare
    needs lm-path, mmc4-shards… here."""
    steps: int = 20
    """Optimizer steps of each run of --compare."""
    run_name: str = "recipes-compared"
    """Folder of the two runs of --compare, which are new."""
    budget_gb: float = 80.0
    """Memory of a GPU in GB (1e9 bytes), which a recipe fits or does not."""
    copy_to: str | None = None
    """Write the recipes' files to this folder, to be changed there, and stop."""

    def _check(self) -> None:
        if self.steps < 2:
            raise UserError(f"--steps {self.steps}: expected at least 2, the first is not timed")
        if self.budget_gb <= 0:
            raise UserError(f"--budget-gb {self.budget_gb:g}: expected more than 0")
        if self.compare is not None and (self.names or self.copy_to):
            raise UserError("--compare A B stands alone: leave out other recipes and --copy-to")
        for one in self.set:
            if "=" not in one:
                raise UserError(f"--set {one}: expected option=value")
