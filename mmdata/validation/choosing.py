"""Which rules count: `--select` and `--ignore`, by code or prefix, as linters have them.

The longest prefix that fits a rule decides, so that `--ignore IMG --select IMG002` leaves IMG002;
of two of one length, `--ignore` does.
"""

from collections.abc import Sequence
from difflib import get_close_matches

from mmdata.errors import UserError
from mmdata.validation.rules import RULES


def chosen_codes(select: Sequence[str], ignore: Sequence[str]) -> frozenset[str]:
    """The codes of the rules that count.

    Args:
        select: codes or their beginnings, also with commas between; none: all rules.
        ignore: the same, of rules that do not count.

    Raises:
        UserError: one of them fits no rule.
    """
    wanted = _prefixes("--select", select) or [""]
    unwanted = _prefixes("--ignore", ignore)
    return frozenset(code for code in RULES if _longest(code, wanted) > _longest(code, unwanted))


def _prefixes(flag: str, given: Sequence[str]) -> list[str]:
    """In capitals, lists with commas taken apart."""
    prefixes = [prefix.strip() for one in given for prefix in one.split(",")]
    for prefix in prefixes:
        _check(flag, prefix)
    return [prefix.upper() for prefix in prefixes]


def _longest(code: str, prefixes: Sequence[str]) -> int:
    return max((len(prefix) for prefix in prefixes if code.startswith(prefix)), default=-1)


def _check(flag: str, prefix: str) -> None:
    if prefix and any(code.startswith(prefix.upper()) for code in RULES):
        return
    near = get_close_matches(prefix.upper(), RULES, n=1)
    hint = f"did you mean {near[0]}?" if near else "mmdata validate --rules lists them"
    raise UserError(f"{flag} {prefix}: no rule has such a code; {hint}")
