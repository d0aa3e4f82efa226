"""The fetcher against a web that misbehaves in every way that its issue lists, over loopback.

Nothing here asks anything but loopback, even where a check fails: 127.0.0.2 and on are other hosts
of the same server. `public` makes 127.0.0.1 pass for a public address, so that a redirect from it
to a private one can be seen to be refused.
"""

import socket
import time
from collections.abc import Callable

import pytest

from mmdata.fetch import addresses
from mmdata.fetch.ahead import Fetcher
from mmdata.fetch.outcome import Fetched
from mmdata.fetch.policy import FetchPolicy
from tests.corpus import picture
from tests.web import Web

LOOSE = {"allow_private_hosts": True, "timeout": 5.0, "retries": 1, "max_bytes": 3_000_000}


def fetch(url: str, **policy: object) -> Fetched:
    with Fetcher(FetchPolicy(**(LOOSE | policy))) as fetcher:  # type: ignore[arg-type]
        ((_, result),) = fetcher.fetched([url], lambda item: item)
    assert result is not None
    return result


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 passes for a public address; all other private ones do not."""
    judge = addresses.address_problem
    monkeypatch.setattr(
        addresses, "address_problem", lambda one: "" if one == "127.0.0.1" else judge(one)
    )


@pytest.mark.parametrize(
    ("path", "status", "http_status"),
    [
        ("/ok/1.jpg", "ok", 200),
        ("/text/1.jpg", "ok", 200),
        ("/gzip/1.jpg", "ok", 200),
        ("/redirect/3/1.jpg", "ok", 200),
        ("/html", "ok", 200),
        ("/empty", "ok", 200),
        ("/bomb.png", "ok", 200),
        ("/noai/noindex", "ok", 200),
        ("/noai/otherbot:%20noai", "ok", 200),
        ("/noai/noai", "noai", 200),
        ("/noai/noindex,%20noimageai", "noai", 200),
        ("/noai/mmdata:%20noai", "noai", 200),
        ("/404", "http-error", 404),
        ("/500", "http-error", 500),
        ("/loop", "redirects", None),
        ("/redirect/9/1.jpg", "redirects", None),
        ("/to?", "redirects", 302),
        ("/to?file:///etc/passwd", "redirects", 302),
        ("/to?ftp://127.0.0.1/x.jpg", "redirects", 302),
        ("/to?http://[::1", "redirects", None),
        ("/endless", "too-large", 200),
        ("/announced", "too-large", 200),
        ("/gzip-bomb", "too-large", 200),
        ("/gzip-cut", "cut-off", 200),
        ("/gzip-bad", "bad-encoding", 200),
        ("/brotli", "bad-encoding", 200),
        ("/cut", "cut-off", None),
        ("/hang-up", "cut-off", None),
        ("/garbage", "protocol", None),
    ],
)
def test_what_comes_of_a_url(web: Web, path: str, status: str, http_status: int | None) -> None:
    result = fetch(web.url(path), retries=0)
    assert (result.status, result.http_status, result.attempts) == (status, http_status, 1)
    assert (result.detail == "") == (status == "ok")
    assert not result.data or status == "ok"


@pytest.mark.parametrize("path", ["/ok/1.jpg", "/text/1.jpg", "/gzip/1.jpg", "/redirect/2/1.jpg"])
def test_the_bytes_are_those_of_the_server(web: Web, path: str) -> None:
    assert fetch(web.url(path)).data == picture(1)


def test_a_url_out_of_html_is_asked_as_it_is_and_then_as_it_was_meant(web: Web) -> None:
    for written in ("/o&#107;/1.jpg", "/o&amp;#107;/1.jpg", "/o&#x6b;/1.jpg"):
        result = fetch(web.url(written))
        assert (result.data, result.attempts) == (picture(1), 2)
        assert result.detail == "404 as given, then without HTML's &amp; and the like: ok"
    assert fetch(web.url("/ok/1.jpg?a=1&amp;b=2")).attempts == 1
    missing = fetch(web.url("/404?a=1&amp;b=2"))
    assert (missing.status, missing.http_status, missing.attempts) == ("http-error", 404, 2)
    assert fetch(web.url("/404?a=1&copy=2")).attempts == 1
    assert fetch(web.url("/500?a=1&amp;b=2"), retries=0).attempts == 1


def test_tags_can_be_ignored_when_asked(web: Web) -> None:
    assert fetch(web.url("/noai/noai"), ignore_noai=True).data == picture(1)


def test_a_body_that_drips_ends_with_the_time(web: Web) -> None:
    result = fetch(web.url("/drip"), timeout=0.5)
    assert (result.status, result.attempts) == ("timeout", 1)
    assert result.seconds >= 0.5  # its end would come after minutes


def test_redirects_share_the_time_of_an_attempt(web: Web) -> None:
    target = web.url("/slow/0.4/1.jpg", "127.0.0.2")
    assert fetch(web.url(f"/to?{target}"), timeout=0.2).status == "timeout"
    assert fetch(web.url(f"/to?{target}"), timeout=60.0).status == "ok"


@pytest.mark.parametrize("path", ["/busy/1/7.jpg", "/busy-date/8.jpg"])
def test_retry_after_is_waited_for(web: Web, path: str) -> None:
    result = fetch(web.url(path, "127.0.0.3"))
    assert (result.status, result.attempts) == ("ok", 2)
    assert result.seconds > 0.4


def test_a_host_that_asks_for_an_hour_is_left_alone(web: Web) -> None:
    host = "127.0.0.4"
    urls = [web.url("/busy-always/3600", host)] + [web.url(f"/ok/{k}.jpg", host) for k in range(20)]
    with Fetcher(FetchPolicy(**LOOSE, per_host=1)) as fetcher:  # type: ignore[arg-type]
        before = sum(web.asked().values())
        results = [result for _, result in fetcher.fetched(urls, lambda item: item)]
    assert {(one.status, one.http_status) for one in results if one} == {("http-error", 429)}
    assert sum(web.asked().values()) - before == 1
    assert results[5] is not None
    assert "asks to be left alone for" in results[5].detail


def test_what_may_pass_is_tried_again_and_the_rest_is_not(web: Web) -> None:
    again = fetch(web.url("/flaky/1/5.jpg"))
    assert (again.status, again.attempts) == ("ok", 2)
    never = fetch(web.url("/flaky/9/6.jpg"))
    assert (never.status, never.http_status, never.attempts) == ("http-error", 500, 2)
    assert fetch(web.url("/404")).attempts == 1
    assert fetch("http://127.0.0.1:1/x.jpg").status == "connect"
    assert fetch("file:///etc/passwd").attempts == 0


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    result = fetch("http://no-such-host.invalid/x.jpg")
    assert (result.status, result.attempts) == ("dns", 1)
    assert "Name or service not known" in result.detail


def test_a_host_gets_few_requests_at_a_time(web: Web) -> None:
    paths = [web.url(f"/slow/0.05/{k}.jpg", "127.0.0.5") for k in range(24)]
    with Fetcher(FetchPolicy(**LOOSE, per_host=2)) as fetcher:  # type: ignore[arg-type]
        start = time.monotonic()
        assert all(r and r.status == "ok" for _, r in fetcher.fetched(paths, lambda p: p))
        assert time.monotonic() - start >= 24 * 0.05 / 2


def test_who_asks_is_said(web: Web) -> None:
    agent = "me/1.0 (mailto:me@example.org)"
    assert fetch(web.url("/agent"), user_agent=agent).detail == f"404 {agent}"


@pytest.mark.usefixtures("public")
class TestPrivateAddresses:
    @pytest.mark.parametrize(
        "target",
        ["http://127.0.0.2:{port}/ok/1.jpg", "http://[::ffff:127.0.0.2]:{port}/ok/1.jpg",
         "//127.0.0.2:{port}/ok/1.jpg", "http://127.0.0.2:{port}/404",
         "http://localtest.example:{port}/ok/1.jpg"],
    )  # fmt: skip
    def test_a_redirect_to_one_is_not_followed(
        self, web: Web, target: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(socket, "getaddrinfo", names({"localtest.example": ["127.0.0.2"]}))
        before = web.asked().get("/ok/1.jpg", 0)
        to = target.format(port=web.port)
        result = fetch(web.url(f"/to?{to}"), allow_private_hosts=False)
        assert result.status == "private-address"
        assert web.asked().get("/ok/1.jpg", 0) == before

    def test_a_public_one_is(self, web: Web) -> None:
        result = fetch(web.url("/redirect/2/1.jpg"), allow_private_hosts=False)
        assert result.data == picture(1)

    def test_a_name_that_changes_its_mind_gains_nothing(
        self, web: Web, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """DNS rebinding: public when checked, private a moment later."""
        asked: list[str] = []
        turns = iter([["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]])

        def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[object]:
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in next(turns)]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        url = web.url("/ok/2.jpg", "rebind.example")
        assert fetch(url, allow_private_hosts=False).status == "ok"
        assert asked == ["rebind.example"]  # what was checked is what was connected to
        assert fetch(url, allow_private_hosts=False).status == "private-address"

    def test_numbers_that_stand_for_an_address_are_seen_through(self, web: Web) -> None:
        for host in ("127.2", "2130706434", "0x7f.2", "0177.0.0.2", "localhost"):
            result = fetch(f"http://{host}:{web.port}/ok/3.jpg", allow_private_hosts=False)
            expected = ("ok",) if host == "localhost" else ("private-address", "bad-url", "dns")
            assert result.status in expected, host


def names(known: dict[str, list[str]]) -> Callable[..., list[object]]:
    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[object]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port))
            for one in known.get(host, [host])
        ]

    return getaddrinfo
