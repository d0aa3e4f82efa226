"""Many downloads at once, handed out in the order of asking, in bounded memory."""

import pytest

from mmdata.errors import MissingExtraError
from mmdata.fetch import ahead
from mmdata.fetch.ahead import Fetcher
from mmdata.fetch.policy import FetchPolicy
from tests.corpus import picture
from tests.web import Web

POLICY = FetchPolicy(allow_private_hosts=True, per_host=16, concurrency=32, timeout=300.0)


def test_without_aiohttp_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmdata.dependencies.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[download\]'"):
        Fetcher(POLICY)


def test_results_come_in_order_whatever_takes_long(web: Web) -> None:
    paths = [f"/slow/{0.3 if k % 7 == 0 else 0}/{k}.jpg" for k in range(40)]
    with Fetcher(POLICY) as fetcher:
        got = list(fetcher.fetched(paths, web.url))
    assert [path for path, _ in got] == paths
    assert [result and result.data for _, result in got] == [picture(k) for k in range(40)]


def test_what_has_no_url_takes_its_place(web: Web) -> None:
    items = ["/ok/1.jpg", None, "/404", None]
    with Fetcher(POLICY) as fetcher:
        got = list(fetcher.fetched(items, lambda path: web.url(path) if path else None))
    assert [item for item, _ in got] == items
    assert [result and str(result.status) for _, result in got] == ["ok", None, "http-error", None]


def test_the_input_is_taken_a_window_ahead_and_no_further(web: Web) -> None:
    taken = 0

    def items() -> object:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield f"/ok/{number % 8}.jpg"

    with Fetcher(POLICY) as fetcher:
        results = fetcher.fetched(items(), web.url)  # type: ignore[arg-type, var-annotated]
        next(results)
        assert taken <= ahead.WINDOW
        results.close()  # type: ignore[attr-defined]


def test_bodies_that_nobody_takes_hold_further_requests_up(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for nothing at all, everything still comes, one after the other."""
    monkeypatch.setattr(ahead, "MAX_HELD_BYTES", 0)
    paths = [f"/ok/{k}.png" for k in range(30)] + ["/flaky/1/90.jpg", "/ok/91.jpg"]
    with Fetcher(POLICY) as fetcher:
        got = [result for _, result in fetcher.fetched(paths, web.url)]
        assert [str(result.status) for result in got if result] == ["ok"] * 32
        assert fetcher._budget._held == 0


def test_a_caller_that_stops_early_leaves_nothing_running(web: Web) -> None:
    with Fetcher(POLICY) as fetcher:
        results = fetcher.fetched([f"/slow/5/{k}.jpg" for k in range(50)], web.url)
        fetcher._loop.call_later(0.2, fetcher._cancel)  # as leaving does
        with pytest.raises(RuntimeError, match="stopped"):
            next(results)
    assert not fetcher._thread.is_alive()
