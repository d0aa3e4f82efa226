"""Options of `mmdata recipes` that make no sense are one line."""

from typing import Any

import pytest

from flamingo.recipes.options import Recipes
from mmdata.errors import UserError


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steps": 1}, "--steps 1: expected at least 2, the first is not timed"),
        ({"budget_gb": 0.0}, "--budget-gb 0: expected more than 0"),
        ({"set": ("lm-path",)}, "--set lm-path: expected option=value"),
        (
            {"compare": ("a", "b"), "names": ("a",)},
            "--compare A B stands alone: leave out other recipes and --copy-to",
        ),
    ],
)
def test_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        Recipes(**given)
    assert str(caught.value) == said
