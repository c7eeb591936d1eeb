"""The default address is that of IPv4, wherever it exists."""

import socket

import pytest

from tickertape.net import loopback


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        ({"127.0.0.1", "::1"}, "127.0.0.1"),
        ({"127.0.0.1"}, "127.0.0.1"),
        ({"::1"}, "::1"),
        (set(), "127.0.0.1"),
    ],
)
def test_ipv6_is_used_only_where_there_is_no_ipv4(
    existing: set[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host with neither address keeps the default, whose error is the familiar one."""

    def exists(family: socket.AddressFamily, address: str) -> bool:
        return address in existing

    monkeypatch.setattr(loopback, "_exists", exists)
    assert loopback.find_loopback() == expected


def test_urls_have_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The URL of an IPv6 address is valid."""
    monkeypatch.setattr(loopback, "LOOPBACK", "::1")
    assert loopback.loopback_url("ws", 8080, "/ws") == "ws://[::1]:8080/ws"
