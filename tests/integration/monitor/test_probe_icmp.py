"""The probe ``icmp`` on loopback, and its packets."""

import errno
import socket
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from tickertape.producers.monitor.gateway.probe_health import Outcome
from tickertape.producers.monitor.probes import CannotProbe, Probe, icmp
from tickertape.producers.monitor.probes.icmp import encode_request, is_reply

from tests.support.probing import TIMEOUT, outcome_and_error, run_probe
from tests.support.servers.loopback import has_ipv6

PAYLOAD = bytes(range(32))


def may_ping() -> bool:
    """Return whether this process may send echo requests."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP).close()
        except OSError:
            continue
        return True
    return False


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1"])
def test_loopback(address: str) -> None:
    """Loopback answers; where the system allows no requests, the gateway is not probed."""
    if ":" in address and not has_ipv6():
        address = "127.0.0.1"
    if may_ping():
        assert outcome_and_error(run_probe(kind="icmp", address=address)) == (Outcome.OK, "None")
    else:
        with pytest.raises(CannotProbe, match="may not send ICMP requests"):
            run_probe(kind="icmp", address=address)


def test_a_denied_socket_names_the_sysctl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without permission the operator learns what to change, and the gateway is not UNHEALTHY."""

    def deny(*_: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "socket", deny)
    with pytest.raises(CannotProbe, match=r"net\.ipv4\.ping_group_range"):
        icmp._open(socket.AF_INET)


def test_a_host_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that sends other packets, but no reply, fails by the timeout."""
    monkeypatch.setattr(icmp, "is_reply", lambda *_, **__: False)
    if may_ping():
        result = run_probe(kind="icmp", address="127.0.0.1", patience=TIMEOUT)
        assert outcome_and_error(result) == (Outcome.FAILED, "no response within 0.5 s")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_packets(family: socket.AddressFamily) -> None:
    """Only the reply with the data of the request counts, with and without a header of IP."""
    request = encode_request(family, PAYLOAD)
    reply = bytes([0 if family == socket.AF_INET else 129]) + request[1:]
    header = b"\x46" + bytes(23) if family == socket.AF_INET else b""
    assert is_reply(family, reply, PAYLOAD, raw=False)
    assert is_reply(family, header + reply, PAYLOAD, raw=True)
    for packet in (b"", b"\0", b"\x4f", request, reply[:-1], reply + b"x", header):
        assert not is_reply(family, packet, PAYLOAD, raw=False)
        assert not is_reply(family, header + packet, PAYLOAD, raw=True)


def test_the_sum_of_a_request_is_that_of_the_internet() -> None:
    """The sum of all words of a request with its checksum is 0 in ones' complement (RFC 1071)."""
    request = encode_request(socket.AF_INET, PAYLOAD)
    total = sum(int.from_bytes(request[index : index + 2], "big") for index in range(0, len(request), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


def test_a_port_is_rejected() -> None:
    """A host has no port."""
    with pytest.raises(ValidationError):
        TypeAdapter(Probe).validate_python({"kind": "icmp", "address": "10.0.0.1:53"})
