"""Fetching addresses of strangers: every way a host can misbehave has its reason, and nothing inside is ever asked."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fetch.addresses import is_public
from serving.fetch.client import Fetcher, FetchLimits, checked
from serving.platform.errors import FetchRefusedError
from tests.serving.fetch.shop import (
    HOSTILE,
    Answer,
    Shop,
    first,
    ok,
    raw,
    redirect,
    shop,
    status,
)

LIMITS = FetchLimits(max_bytes=200_000, deadline_s=60.0, connect_s=60.0, read_s=60.0, max_wait_s=2.0)
HASTY = FetchLimits(max_bytes=200_000, deadline_s=1.0, connect_s=1.0, read_s=0.6, max_wait_s=2.0)
"""For hosts that take their time: nothing else may depend on how quick the machine is."""
PHOTO = b"\xff\xd8" + b"photo" * 100


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    fetcher = Fetcher(LIMITS, trusted=frozenset({"127.0.0.1"}))
    yield fetcher
    fetcher.close()


@pytest.fixture(scope="module")
def host() -> Iterator[Shop]:
    pages: dict[str, bytes | Answer] = {path: answer for path, (answer, _) in HOSTILE.items()}
    pages |= {
        "/photo.jpg": PHOTO,
        "/moved": redirect("/photo.jpg", 308),
        "/relative": redirect("photo.jpg"),
        "/with%20space%20%C3%BC.jpg": PHOTO,
    }
    with shop(pages) as opened:
        yield opened


@pytest.mark.parametrize("path", HOSTILE)
def test_every_misbehaviour_has_its_reason(host: Shop, path: str) -> None:
    reason = HOSTILE[path][1]
    fetcher = Fetcher(HASTY if reason == "timeout" else LIMITS, trusted=frozenset({"127.0.0.1"}))
    with pytest.raises(FetchRefusedError) as refused:
        fetcher.get(host.url(path))
    fetcher.close()
    assert refused.value.reason == reason
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("path", ["/photo.jpg", "/moved", "/relative", "/with space ü.jpg", "/photo.jpg#fragment"])
def test_a_photo_comes_whole(host: Shop, fetcher: Fetcher, path: str) -> None:
    assert fetcher.get(host.url(path)) == PHOTO


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.com/a.jpg", "url_invalid"),
        ("file:///etc/passwd", "url_invalid"),
        ("gopher://example.com", "url_invalid"),
        ("http://", "url_invalid"),
        ("http://user:secret@example.com/", "url_invalid"),
        ("http://example.com:99999/", "url_invalid"),
        ("http://[::1", "url_invalid"),
        ("http://" + "a" * 5000, "url_invalid"),
        ("http://a..b/", "url_invalid"),
        ("photo.jpg", "url_invalid"),
        ("http://127.0.0.1/", "address_refused"),
        ("http://localhost/", "address_refused"),
        ("http://0/", "address_refused"),
        ("http://0x7f.1/", "address_refused"),
        ("http://[::1]/", "address_refused"),
        ("http://10.1.2.3/", "address_refused"),
        ("http://100.64.0.1/", "address_refused"),
        ("http://[fd00::1]/", "address_refused"),
        ("http://[fe80::1%25lo]/", "url_invalid"),
        ("http://[fe80::1]/", "address_refused"),
        ("http://[64:ff9b::7f00:1]/", "address_refused"),
        ("http://[2002:7f00:1::]/", "address_refused"),
        ("http://224.0.0.1/", "address_refused"),
        ("http://[::127.0.0.1]/", "address_refused"),
        ("http://[fec0::1]/", "address_refused"),
        ("http://①②⑦.⓪.⓪.①/", "address_refused"),
    ],
)
def test_no_address_leads_inside(url: str, reason: str) -> None:
    fetcher = Fetcher(LIMITS)
    with pytest.raises(FetchRefusedError) as refused:
        fetcher.get(url)
    assert refused.value.reason == reason


def test_a_name_that_turns_inside_between_two_answers_is_refused(host: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebinding: whatever the name server says first, the address that is connected to is the one that is checked."""
    real, asked = socket.getaddrinfo, []

    def rebinding(name: str, *rest: Any, **named: Any) -> object:
        asked.append(name)
        return real("127.0.0.1" if name == "photos.example" else name, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    before = sum(host.asked.values())
    with pytest.raises(FetchRefusedError) as refused:
        Fetcher(LIMITS).get(host.url("/photo.jpg", "photos.example"))
    assert (refused.value.reason, asked) == ("address_refused", ["photos.example"])
    assert sum(host.asked.values()) == before
    # a name that is trusted may lead there, and no other name with it
    trusting = Fetcher(LIMITS, trusted=frozenset({"photos.example"}))
    assert trusting.get(host.url("/photo.jpg", "photos.example")) == PHOTO
    with pytest.raises(FetchRefusedError):
        trusting.get(host.url("/photo.jpg"))


def test_only_hosts_of_the_list_are_asked(host: Shop) -> None:
    fetcher = Fetcher(LIMITS, allowed=frozenset({".shop.example", "127.0.0.2"}), trusted=frozenset({"127.0.0.1"}))
    for url in (host.url("/photo.jpg"), "http://shop.example.evil.test/", "http://evilshop.example/"):
        with pytest.raises(FetchRefusedError) as refused:
            fetcher.get(url)
        assert refused.value.reason == "host_refused"


def test_a_host_that_asks_to_wait_is_waited_for(fetcher: Fetcher) -> None:
    pages: dict[str, bytes | Answer] = {"/a": first(status(503, "Retry-After: 1\r\n"), raw(ok(PHOTO)))}
    with shop(pages) as host:
        assert fetcher.get(host.url("/a")) == PHOTO
        early, late = host.times["/a"]
        assert late - early >= 0.95


def test_a_torn_answer_is_asked_for_again_and_a_missing_photo_is_not(host: Shop, fetcher: Fetcher) -> None:
    pages: dict[str, bytes | Answer] = {"/b": first(raw(b"HTTP/1.1 200"), status(500), raw(ok(PHOTO)))}
    with shop(pages) as other:
        assert fetcher.get(other.url("/b")) == PHOTO
        with pytest.raises(FetchRefusedError):
            fetcher.get(other.url("/none"))
        assert (other.asked["/b"], other.asked["/none"]) == (3, 1)


def test_a_host_is_asked_no_more_at_once_and_no_faster_than_allowed() -> None:
    def slowly(connection: socket.socket) -> None:
        time.sleep(0.05)
        connection.sendall(ok(PHOTO))

    limits = FetchLimits(per_host=2, rate_per_host=20)
    with shop({"/c": slowly}) as host, ThreadPoolExecutor(8) as pool:
        fetcher = Fetcher(limits, trusted=frozenset({"127.0.0.1"}))
        started = time.monotonic()
        assert set(pool.map(fetcher.get, [host.url("/c")] * 12)) == {PHOTO}
        # the caller's clock: the host may hear of the first one late
        assert time.monotonic() - started >= 11 / 20
        assert host.most_at_once <= 2


def test_a_name_without_an_address() -> None:
    with pytest.raises(FetchRefusedError) as refused:
        Fetcher(LIMITS).get("http://no-such-host.invalid/a.jpg")
    assert refused.value.reason == "unresolvable"


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        url, host = checked("http://" + text)
    except FetchRefusedError as error:
        assert error.reason == "url_invalid"
    else:
        assert url.isascii()
        assert " " not in url
        assert host


@given(st.ip_addresses())
def test_what_is_not_global_is_never_public(address: IPv4Address | IPv6Address) -> None:
    if not address.is_global:
        assert not is_public(str(address))
