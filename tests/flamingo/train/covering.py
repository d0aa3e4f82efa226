"""The fewest rows in which each pair of settings of two levers is met, by a greedy choice."""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product
from typing import Any

Setting = dict[str, Any]
#: The place of each lever's setting among its settings.
Row = tuple[int, ...]
Levers = Sequence[Sequence[Setting]]


def settings(levers: Levers, row: Row) -> Setting:
    """The options of a row."""
    chosen: Setting = {}
    for lever, place in zip(levers, row, strict=True):
        chosen |= lever[place]
    return chosen


def pairs(row: Row) -> Iterator[tuple[int, int, int, int]]:
    """(lever, setting, other lever, its setting) for every two levers of a row."""
    for first, second in combinations(range(len(row)), 2):
        yield first, row[first], second, row[second]


def covering_rows(
    levers: Levers,
    is_taken: Callable[[Setting], bool],
    cost: Callable[[Setting], int] = lambda _: 0,
    with_lever: int | None = None,
) -> list[Row]:
    """Rows in which every pair is met that any taken row has; the same ones every time.

    Args:
        levers: each one's settings.
        is_taken: whether a run may have these settings.
        cost: of a run; among equals the cheapest is chosen.
        with_lever: only pairs with a setting of this lever have to be met; None: all pairs.
    """
    every = product(*(range(len(lever)) for lever in levers))
    rows = [row for row in every if is_taken(settings(levers, row))]
    bits: dict[tuple[int, int, int, int], int] = {}
    masks = [
        sum(
            1 << bits.setdefault(pair, len(bits))
            for pair in pairs(row)
            if with_lever is None or with_lever in (pair[0], pair[2])
        )
        for row in rows
    ]
    costs = [cost(settings(levers, row)) for row in rows]
    left = (1 << len(bits)) - 1
    chosen = []
    while left:
        best = max(range(len(rows)), key=lambda i: ((masks[i] & left).bit_count(), -costs[i], -i))
        chosen.append(rows[best])
        left &= ~masks[best]
    return chosen
