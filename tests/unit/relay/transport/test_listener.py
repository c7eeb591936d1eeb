"""A port at every address of its host."""

import errno
import socket
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tickertape.relay.transport import listener
from tickertape.relay.transport.http_server import listen
from tickertape.relay.transport.listener import bind

from tickertape.process.addresses import resolve
from tickertape.process.listeners import ListenError
from tickertape.process.metrics_port import MetricsPort


def has_ipv6() -> bool:
    """Tell whether this machine has the loopback address of IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="needs IPv6 on loopback")


def answers(*hosts: str) -> Any:
    """A resolver for which every name is all of these addresses."""

    def look_up(host: str, port: int, **more: Any) -> list[Any]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (one, port, 0, 0))
            if ":" in one
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port))
            for one in hosts
        ]

    return look_up


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost."])
def test_localhost_is_both_whatever_the_resolver_says(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many machines have no line for IPv6 in their file of names, and browsers try it first."""
    assert [address[0] for _, address in resolve(host, 80)] == ["127.0.0.1", "::1"]


def test_each_address_is_had_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the resolver names it; IPv4 first."""
    monkeypatch.setattr(socket, "getaddrinfo", answers("::1", "127.0.0.2", "127.0.0.2", "127.0.0.1"))
    assert [address[0] for _, address in resolve("name", 80)] == ["127.0.0.2", "127.0.0.1", "::1"]


@needs_ipv6
def test_all_sockets_have_one_port() -> None:
    """Port 0 takes one that is free at all addresses; the name is told, since it leads to both."""
    made = bind("localhost", 0)
    try:
        assert [one.getsockname()[0] for one in made.sockets] == ["127.0.0.1", "::1"]
        assert {one.getsockname()[1] for one in made.sockets} == {made.port}
        assert made.address == f"localhost:{made.port}"
    finally:
        made.close()


@needs_ipv6
def test_a_port_that_is_taken_at_one_address_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Port 0 is any port; a given one is an error, and nothing stays bound."""
    real = listener._open_socket
    tries: list[object] = []

    def taken_once(family: Any, address: Any, **more: Any) -> socket.socket:
        if family == socket.AF_INET6:
            tries.append(address[1])
            if len(tries) == 1:
                raise OSError(errno.EADDRINUSE, "in use")
        return real(family, address, **more)

    monkeypatch.setattr(listener, "_open_socket", taken_once)
    made = bind("localhost", 0)
    assert len(made.sockets) == len(tries) == 2
    made.close()
    with socket.socket(socket.AF_INET6) as holder:
        holder.bind(("::1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(ListenError, match=f"localhost:{port} is already in use; choose another --port"):
            listen("localhost", port, "--port")
    with socket.socket() as free:
        free.bind(("127.0.0.1", port))


@pytest.mark.parametrize("code", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_without_ipv6_there_is_ipv4(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address is told, as before."""
    real = listener._open_socket

    def without(family: Any, address: Any, **more: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(code, "not here")
        return real(family, address, **more)

    monkeypatch.setattr(listener, "_open_socket", without)
    made = bind("localhost", 0)
    assert made.address == f"127.0.0.1:{made.port}"
    made.close()
    with pytest.raises(ListenError, match=r"cannot listen on \[::1\]:0"):
        listen("::1", 0, "--port")


def test_an_address_is_itself() -> None:
    """One socket; an address of IPv6 is told in brackets."""
    made = bind("127.0.0.1", 0)
    assert (len(made.sockets), made.address) == (1, f"127.0.0.1:{made.port}")
    made.close()


@needs_ipv6
def test_any_address_of_ipv6_still_takes_ipv4() -> None:
    """``::`` alone is one socket for both, as it was."""
    made = bind("::", 0)
    try:
        assert made.address == f"[::]:{made.port}"
        with socket.create_connection(("127.0.0.1", made.port), 5):
            pass
    finally:
        made.close()


def test_a_name_that_leads_nowhere_is_an_error() -> None:
    """Told with the option to change."""
    with pytest.raises(ListenError, match=r"cannot listen on nowhere\.invalid:0: .*; choose another --host"):
        listen("nowhere.invalid", 0, "--port")


@pytest.mark.parametrize("host", ["", ".", "a..b", "a" * 64, "\u00e9" * 64, "[::1]", "127.0.0.1 ", "\udcff"])
def test_what_is_no_name_is_an_error(host: str) -> None:
    """Also what Python refuses before it asks the resolver."""
    with pytest.raises(ListenError, match=r"cannot listen on .*: .*; choose another --ops-host"):
        listen(host, 0, "--ops-port")
    with pytest.raises(ListenError, match=r"cannot listen on .* for metrics: .*; choose another"):
        MetricsPort(host, 1, CollectorRegistry())
