"""Turns at a host, rests that it asks for, and what it says about AI."""

import asyncio
import email.utils
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.fetch.outcome import FetchError
from mmdata.fetch.politeness import Turns, backoff_seconds, forbids_ai, parse_retry_after


@pytest.mark.parametrize(
    ("tags", "forbidden"),
    [
        ([], False),
        (["noai"], True),
        (["noimageai"], True),
        (["NoAI"], True),
        (["noindex, noimageai"], True),
        (["noindex", "noai"], True),
        (["noindex, nofollow"], False),
        (["mmdata: noai"], True),
        (["*: noai"], True),
        (["otherbot: noai"], False),
        (["otherbot: noindex, noai"], False),
        (["max-snippet: 5, noai"], True),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST"], False),
        (["noaim"], False),
    ],
)
def test_x_robots_tag(tags: list[str], forbidden: bool) -> None:
    assert forbids_ai(tags, "mmdata") is forbidden


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), ("120", 120.0), (" 7 ", 7.0), (None, None), ("", None), ("soon", None),
     ("-1", None), ("1.5", None), ("²", None)],
)  # fmt: skip
def test_retry_after_in_seconds(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value) == seconds


def test_retry_after_as_a_date() -> None:
    now = 1_800_000_000.0
    later = email.utils.formatdate(now + 90, usegmt=True)
    earlier = email.utils.formatdate(now - 90, usegmt=True)
    assert parse_retry_after(later, now) == 90.0
    assert parse_retry_after(earlier, now) == 0.0


@given(st.text(max_size=40))
def test_retry_after_takes_any_text(value: str) -> None:
    seconds = parse_retry_after(value)
    assert seconds is None or seconds >= 0.0


@given(st.integers(0, 40), st.floats(0, 0.999))
def test_backoff_doubles_up_to_a_limit(attempt: int, draw: float) -> None:
    assert backoff_seconds(attempt, 0.0) == min(0.5 * 2**attempt, 30.0)
    assert backoff_seconds(attempt, 0.0) <= backoff_seconds(attempt, draw) < 60.0


def test_a_host_is_asked_by_few_at_a_time_and_others_meanwhile() -> None:
    now = {"a": 0, "b": 0}
    most = {"a": 0, "b": 0}

    async def ask(turns: Turns, host: str) -> None:
        async with turns.turn(host):
            now[host] += 1
            most[host] = max(most[host], now[host])
            await asyncio.sleep(0.005)
            now[host] -= 1

    async def all_of_them() -> None:
        turns = Turns(per_host=3, max_wait=1.0)
        await asyncio.gather(*(ask(turns, host) for host in "ab" * 20))
        assert turns._hosts == {}

    asyncio.run(all_of_them())
    assert most == {"a": 3, "b": 3}


def test_a_host_that_asks_for_a_rest_gets_it() -> None:
    """And others have their turn meanwhile."""
    order = []

    async def ask(turns: Turns, host: str) -> None:
        async with turns.turn(host):
            order.append(host)

    async def run() -> float:
        turns = Turns(per_host=2, max_wait=60.0)
        start = time.monotonic()
        turns.rest("a", 0.5)
        await asyncio.gather(ask(turns, "a"), ask(turns, "b"))
        return time.monotonic() - start

    assert asyncio.run(run()) >= 0.5
    assert order == ["b", "a"]


def test_a_host_that_asks_for_long_is_given_up() -> None:
    async def run() -> None:
        turns = Turns(per_host=2, max_wait=1.0)
        turns.rest("a", 3600)
        async with turns.turn("a"):
            raise AssertionError("nobody's turn")

    with pytest.raises(FetchError, match="a asks to be left alone for 3600 s more"):
        asyncio.run(run())
