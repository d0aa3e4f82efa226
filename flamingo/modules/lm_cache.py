"""The key-value cache of an LM, under the name that this LM has for it.

Until 5.23 transformers said `past_key_values`, or `cache_params` where the LM is recurrent; since
5.24 it says `cache`. Code that comes with a checkpoint keeps the name of its day, so the LM is
asked and not the version.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from mmdata.errors import UserError

#: Newest first.
NAMES = ("cache", "past_key_values", "cache_params")


def cache_in(values: Mapping[str, Any]) -> Any:
    """The cache among an LM's arguments or outputs; None where there is none."""
    # The keys are looked through, since an output answers to old names too, and complains.
    present = set(values.keys())
    return next((values[name] for name in NAMES if name in present), None)


def one_cache(cache: Any, past_key_values: Any) -> Any:
    """The cache that a caller gave under its one name or the other; None where it gave none.

    Raises:
        UserError: it was given under both.
    """
    if cache is not None and past_key_values is not None:
        raise UserError("cache: expected it, or its older name past_key_values, got both")
    return past_key_values if cache is None else cache


def cache_argument(lm: nn.Module, cache: Any) -> dict[str, Any]:
    """The argument that hands a cache to the LM; nothing where there is none."""
    if cache is None:
        return {}
    taken = inspect.signature(lm.forward).parameters
    # An LM that names none of them takes what it is given: transformers' name of today.
    return {next((name for name in NAMES if name in taken), NAMES[0]): cache}


def positions_held(cache: Any) -> int | None:
    """Positions that a cache holds, if there is one and it knows."""
    try:
        return None if cache is None else int(cache.get_seq_length())
    except ValueError:  # a cache of recurrent layers only
        return None
