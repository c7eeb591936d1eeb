"""Findings about ports (free, a relay, another program) and descriptors."""

import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tickertape.relay.settings import RelaySettings

from tickertape.cli.check.finding import Finding
from tickertape.cli.check.ports import check_ports, program_on


def found(**values: Any) -> dict[str, Finding]:
    """Return findings by name."""
    return {one.name: one for one in check_ports(RelaySettings(**values))}


@contextmanager
def answering(answer: Callable[[bytes], bytes]) -> Iterator[int]:
    """Run a listener that responds by path; yield its port."""
    server = socket.create_server(("127.0.0.1", 0), backlog=16)

    def serve() -> None:
        while True:
            try:
                link, _ = server.accept()
            except OSError:
                return
            with link:
                words = link.recv(4096).split()
                link.sendall(answer(words[1] if len(words) > 1 else b""))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def page(status: int, body: bytes) -> bytes:
    """Return an HTTP response."""
    return b"HTTP/1.1 %d x\r\nconnection: close\r\n\r\n%b" % (status, body)


def test_free_ports_are_free() -> None:
    """Free ports are ok, including those that the system chooses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    one = found(port=port, ops_port=0)
    assert str(one["main_port"]) == f"ok     main port 127.0.0.1:{port} is available"
    assert str(one["ops_port"]) == "ok     --ops-port 0: a free port is picked"


@pytest.mark.parametrize("ops_host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_one_port_for_both_is_an_error(ops_host: str) -> None:
    """The same port for both purposes is an error, although it is free."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    one = found(port=port, ops_port=port, ops_host=ops_host)
    assert one["main_port"].state == "ok"
    assert one["ops_port"].state == "error"
    assert one["ops_port"].text == f"--port and --ops-port are both {port}"
    assert one["ops_port"].hint == "choose another --ops-port"


def test_a_port_of_another_program_is_reported_with_its_name() -> None:
    """A port of another program is reported with the program's name; here it is this test."""
    with answering(lambda _: b"220 mail.example.com ESMTP\r\n") as port:
        one = found(port=port, ops_port=port)
    for name, option in (("main_port", "--port"), ("ops_port", "--ops-port")):
        assert one[name].state == "error"
        assert f"127.0.0.1:{port} is already in use" in one[name].text
        assert one[name].hint == f"choose another {option}"
        assert f"pid {os.getpid()})" in one[name].text


def test_a_web_server_is_no_relay() -> None:
    """A web server with the same paths is not mistaken for a relay."""
    with answering(lambda _: page(200, b'{"status":"up"}')) as port:
        assert {one.state for name, one in found(port=port, ops_port=port).items() if "port" in name} == {
            "error"
        }


@pytest.mark.parametrize(
    ("ready", "state", "output"),
    [((200, b"ready\n"), "ok", "ready"), ((503, b"not ready\n"), "error", "not ready")],
)
def test_a_relay_on_the_ops_port_reports_its_readiness(
    ready: tuple[int, bytes], state: str, output: str
) -> None:
    """A relay on the ops port is reported with its readiness; not ready is a warning."""
    answers = {b"/livez": page(200, b"ok\n"), b"/readyz": page(*ready)}
    with answering(lambda path: answers[path]) as port:
        one = found(port=0, ops_port=port)["ops_port"]
    assert one.state == state
    assert one.text.endswith(f"reports: {output}")


def test_an_answer_cannot_write_on_the_terminal() -> None:
    """Control characters in the response of another program are escaped."""
    answers = {b"/livez": page(200, b"ok"), b"/readyz": page(503, b"\x1b[2Jgone\nmore")}
    with answering(lambda path: answers[path]) as port:
        text = found(port=0, ops_port=port)["ops_port"].text
    assert text.endswith("reports: \\x1b[2Jgone")


def test_a_foreign_address_is_reported() -> None:
    """An address that this machine does not have is an error; here it is one reserved for documentation."""
    one = found(host="192.0.2.1", insecure=True)["main_port"]
    assert one.state == "error"
    assert "cannot listen on 192.0.2.1:8080" in one.text


def test_a_free_port_has_no_program() -> None:
    """A free port has no program name."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert f"pid {os.getpid()}" in program_on(port)
    assert program_on(port) == ""


@pytest.mark.parametrize(
    ("hard", "connections", "state", "text"),
    [
        (20_000, 0, "ok", "20000 file descriptors, enough for 19904 connections"),
        (20_000, 10_000, "ok", "20000 file descriptors, enough for --max-connections 10000"),
        (1_024, 10_000, "error", "--max-connections 10000: only 1024 file descriptors, but 10096 are needed"),
        (64, 0, "error", "a relay: only 64 file descriptors, but 96 are needed"),
        (
            resource.RLIM_INFINITY,
            10_000,
            "ok",
            "1048576 file descriptors, enough for --max-connections 10000",
        ),
    ],
)
def test_descriptors_are_compared_with_connections(
    monkeypatch: pytest.MonkeyPatch, hard: int, connections: int, state: str, text: str
) -> None:
    """The hard descriptor limit, to which the relay raises its own, is compared with the connection limit."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1_024, hard))
    one = found(port=0, ops_port=0, max_connections=connections)["descriptors"]
    assert (one.state, one.text) == (state, text)


def test_an_invalid_host_name_is_a_finding() -> None:
    """An invalid host name is a finding, not an exception."""
    one = found(host="a..b", port=1, insecure=True, ops_host="b" * 64, ops_port=1)
    assert "not a host name" in one["main_port"].text
    assert "not a host name" in one["ops_port"].text
