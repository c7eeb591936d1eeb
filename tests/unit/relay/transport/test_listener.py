"""A listener has one port on all addresses of its host."""

import errno
import socket
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tickertape.relay.transport import listener
from tickertape.relay.transport.http.server import listen
from tickertape.relay.transport.listener import bind

from tests.support.servers.loopback import has_ipv6
from tickertape.net.addresses import resolve
from tickertape.net.listeners import ListenError
from tickertape.net.metrics_port import MetricsPort

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="needs IPv6 on loopback")


def resolving_to(*hosts: str) -> Any:
    """Return a `getaddrinfo` that resolves every name to these addresses."""

    def getaddrinfo(name: str, port: int, **options: Any) -> list[Any]:
        if options.get("flags", 0) & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (host, port, 0, 0))
            if ":" in host
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
            for host in hosts
        ]

    return getaddrinfo


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost."])
def test_localhost_has_both_loopback_addresses(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` has both addresses even if the hosts file lacks the IPv6 one, which browsers try first."""
    assert [address[0] for _, address in resolve(host, 80)] == ["127.0.0.1", "::1"]


def test_each_address_is_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address is listed once even if the resolver repeats it, and IPv4 comes first."""
    monkeypatch.setattr(socket, "getaddrinfo", resolving_to("::1", "127.0.0.2", "127.0.0.2", "127.0.0.1"))
    assert [address[0] for _, address in resolve("name", 80)] == ["127.0.0.2", "127.0.0.1", "::1"]


@needs_ipv6
def test_all_sockets_have_one_port() -> None:
    """Port 0 picks a port that is free on both addresses, and the listener reports the host name."""
    listening = bind("localhost", 0)
    try:
        assert [sock.getsockname()[0] for sock in listening.sockets] == ["127.0.0.1", "::1"]
        assert {sock.getsockname()[1] for sock in listening.sockets} == {listening.port}
        assert listening.address == f"localhost:{listening.port}"
    finally:
        listening.close()


@needs_ipv6
def test_a_port_in_use_on_one_address_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Port 0 is tried again with another port; a given port in use is an error, and no socket stays bound."""
    real = listener._open_socket
    attempts: list[object] = []

    def taken_once(family: Any, address: Any, **kwargs: Any) -> socket.socket:
        if family == socket.AF_INET6:
            attempts.append(address[1])
            if len(attempts) == 1:
                raise OSError(errno.EADDRINUSE, "in use")
        return real(family, address, **kwargs)

    monkeypatch.setattr(listener, "_open_socket", taken_once)
    listening = bind("localhost", 0)
    assert len(listening.sockets) == len(attempts) == 2
    listening.close()
    with socket.socket(socket.AF_INET6) as holder:
        holder.bind(("::1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(ListenError, match=f"localhost:{port} is already in use; choose another --port"):
            listen("localhost", port, "--port")
    with socket.socket() as free:
        free.bind(("127.0.0.1", port))


@pytest.mark.parametrize("code", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_without_ipv6_only_ipv4_is_bound(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without IPv6 listens on IPv4 only, and the listener reports that address."""
    real = listener._open_socket

    def without(family: Any, address: Any, **kwargs: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(code, "not here")
        return real(family, address, **kwargs)

    monkeypatch.setattr(listener, "_open_socket", without)
    listening = bind("localhost", 0)
    assert listening.address == f"127.0.0.1:{listening.port}"
    listening.close()
    with pytest.raises(ListenError, match=r"cannot listen on \[::1\]:0"):
        listen("::1", 0, "--port")


def test_an_ip_address_has_one_socket() -> None:
    """An IP address has a single socket and is reported as it is."""
    listening = bind("127.0.0.1", 0)
    assert (len(listening.sockets), listening.address) == (1, f"127.0.0.1:{listening.port}")
    listening.close()


@needs_ipv6
def test_the_ipv6_wildcard_accepts_ipv4() -> None:
    """A single socket on ``::`` accepts IPv4 as well, and the address is reported in brackets."""
    listening = bind("::", 0)
    try:
        assert listening.address == f"[::]:{listening.port}"
        with socket.create_connection(("127.0.0.1", listening.port), 5):
            pass
    finally:
        listening.close()


def test_an_unresolvable_host_is_an_error() -> None:
    """A host name that does not resolve is an error that names the option to change."""
    with pytest.raises(ListenError, match=r"cannot listen on nowhere\.invalid:0: .*; choose another --host"):
        listen("nowhere.invalid", 0, "--port")


@pytest.mark.parametrize("host", ["", ".", "a..b", "a" * 64, "\u00e9" * 64, "[::1]", "127.0.0.1 ", "\udcff"])
def test_an_invalid_host_name_is_an_error(host: str) -> None:
    """An invalid host name is an error, including those that Python rejects before it asks the resolver."""
    with pytest.raises(ListenError, match=r"cannot listen on .*: .*; choose another --ops-host"):
        listen(host, 0, "--ops-port")
    with pytest.raises(ListenError, match=r"cannot listen on .* for metrics: .*; choose another"):
        MetricsPort(host, 1, CollectorRegistry())
