"""Only http(s) URLs to public addresses are asked, however an address is written."""

import asyncio
import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.fetch.addresses import (
    NoSuchHostError,
    PrivateAddressError,
    PublicResolver,
    address_problem,
    check_resolved,
    check_url,
)
from mmdata.fetch.outcome import FetchError


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "0.0.0.0", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
        "fd12:3456::1", "ff02::1", "2001:db8::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1",
        "64:ff9b::a00:1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:c0a8:101::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert address_problem(address) != ""


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.216.34", "172.15.0.1", "172.32.0.1", "2606:4700::1111",
     "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)  # fmt: skip
def test_public_addresses(address: str) -> None:
    assert address_problem(address) == ""


@given(st.ip_addresses(v=4))
def test_ipv4_inside_ipv6_is_judged_as_ipv4(address: ipaddress.IPv4Address) -> None:
    plain = address_problem(str(address)) == ""
    assert (address_problem(f"::ffff:{address}") == "") == plain
    assert (address_problem(str(ipaddress.IPv6Address((0x64FF9B << 96) + int(address)))) == "") == (
        plain
    )


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("file:///etc/passwd", "bad-url"),
        ("ftp://example.org/x.jpg", "bad-url"),
        ("javascript:alert(1)", "bad-url"),
        ("data:image/png;base64,AAAA", "bad-url"),
        ("gopher://example.org/", "bad-url"),
        ("//example.org/x.jpg", "bad-url"),
        ("example.org/x.jpg", "bad-url"),
        ("http://", "bad-url"),
        ("http:///x.jpg", "bad-url"),
        ("http://[::1", "bad-url"),
        ("http://example.org:99999/", "bad-url"),
        ("http://example.org:0/", "bad-url"),
        ("http://user:secret@example.org/", "bad-url"),
        ("http://example.org\\@127.0.0.1/", "bad-url"),
        ("http://example.org/\r\nHost: x", "bad-url"),
        ("http://example.org/" + "x" * 9000, "bad-url"),
        ("", "bad-url"),
        ("http://127.0.0.1/x.jpg", "private-address"),
        ("http://[::1]/x.jpg", "private-address"),
        ("http://[::ffff:10.0.0.1]/", "private-address"),
        ("https://169.254.169.254/latest/meta-data", "private-address"),
    ],
)
def test_urls_that_are_never_asked(url: str, status: str) -> None:
    with pytest.raises(FetchError) as caught:
        check_url(url, allow_private=False)
    assert caught.value.status == status


def test_urls_that_are_asked() -> None:
    for url in (
        "http://example.org/a.jpg",
        "https://8.8.8.8:8080/?q=ü#x",
        " http://bücher.de/a b ",
    ):
        assert check_url(url, allow_private=False).host
    assert check_url("http://127.0.0.1:1/", allow_private=True).port == 1


@given(st.text(max_size=60))
def test_no_text_brings_the_check_down(text: str) -> None:
    try:
        url = check_url("http://" + text, allow_private=False)
    except FetchError:
        return
    assert url.scheme == "http"
    assert url.raw_host


def resolve(host: str, *, allow_private: bool = False) -> list[str]:
    async def run() -> list[str]:
        resolver = PublicResolver(allow_private=allow_private)
        try:
            return [result["host"] for result in await resolver.resolve(host, 80)]
        finally:
            await resolver.close()

    return asyncio.run(run())


def answers(*addresses: str) -> object:
    def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    return getaddrinfo


def test_a_name_is_judged_by_what_it_resolves_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", answers("192.168.0.7"))
    with pytest.raises(PrivateAddressError, match=r"innocent\.example is 192\.168\.0\.7"):
        resolve("innocent.example")
    assert resolve("innocent.example", allow_private=True) == ["192.168.0.7"]
    with pytest.raises(FetchError, match=r"innocent\.example is 192\.168\.0\.7"):
        check_resolved("http://innocent.example/a.jpg", allow_private=False)


def test_of_a_name_with_several_addresses_only_public_ones_are_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", answers("10.0.0.1", "8.8.8.8"))
    assert resolve("mixed.example") == ["8.8.8.8"]
    with pytest.raises(FetchError):  # a client that resolves by itself might take the other
        check_resolved("http://mixed.example/", allow_private=False)


def test_a_name_that_does_not_resolve_is_not_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def fails(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    async def twice() -> None:
        resolver = PublicResolver(allow_private=False)
        for _ in range(2):
            with pytest.raises(NoSuchHostError, match="Name or service not known"):
                await resolver.resolve("gone.example", 80)
        await resolver.close()

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    asyncio.run(twice())
    assert asked == ["gone.example"]
