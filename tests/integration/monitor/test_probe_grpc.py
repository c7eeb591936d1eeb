"""The probe ``grpc`` with a real server of gRPC, and with servers of other protocols."""

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from tickertape.producers.monitor.gateway.probe_health import Outcome

from tests.support.probing import (
    Handler,
    answering,
    outcome_and_error,
    probe_once,
    run_probe,
    serving,
    silent,
)
from tests.support.servers.grpc_server import grpc_server


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server(authority: trustme.CA) -> Iterator[tuple[int, int]]:
    """Run a server; yield its ports without and with TLS."""
    with grpc_server(authority) as ports:
        yield ports


@pytest.mark.parametrize(
    ("service", "error"),
    [
        ("", None),
        ("orders", None),
        ("quotes", "service 'quotes' is NOT_SERVING, expected SERVING"),
        ("empty", "service 'empty' is UNKNOWN, expected SERVING"),
        ("new", "service 'new' is status 99, expected SERVING"),
        ("none", "gRPC status is NOT_FOUND, expected OK: 'unknown service'"),
        ("other", "response is not a message of the health check"),
        ("x" * 300, "gRPC status is NOT_FOUND, expected OK: 'unknown service'"),
    ],
)
def test_health(server: tuple[int, int], service: str, error: str | None) -> None:
    """A server or service that is SERVING is healthy; any other status is named."""
    result = run_probe(kind="grpc", address=f"127.0.0.1:{server[0]}", service=service)
    outcome, text = outcome_and_error(result)
    assert (outcome is Outcome.OK) is (error is None), text
    assert error is None or text.startswith(error)


def test_tls(server: tuple[int, int], authority: trustme.CA, tmp_path: Path) -> None:
    """The call works over TLS, whose certificate is verified."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    probe: dict[str, Any] = {"kind": "grpc", "address": f"localhost:{server[1]}", "tls": True}
    assert outcome_and_error(run_probe(**probe, ca=str(tmp_path / "ca.pem"))) == (Outcome.OK, "None")
    assert outcome_and_error(run_probe(**probe))[1].startswith("certificate rejected: ")


def test_credentials(server: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers are sent as metadata, and secrets are not shown."""
    probe: dict[str, Any] = {"kind": "grpc", "address": f"127.0.0.1:{server[0]}", "service": "private"}
    monkeypatch.setenv("TOKEN", "hunter22")
    assert outcome_and_error(run_probe(**probe, bearer_token_env="TOKEN")) == (Outcome.OK, "None")
    monkeypatch.setenv("TOKEN", "hunter33")
    error = outcome_and_error(run_probe(**probe, bearer_token_env="TOKEN"))[1]
    assert error == "gRPC status is UNAUTHENTICATED, expected OK: 'who is Bearer ***?'"


def h2_frame(kind: int, payload: bytes, stream: int = 0, flags: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


SETTINGS = h2_frame(4, b"")


def sending(data: bytes, ends: bool = False) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(data)
        await writer.drain()
        if not ends:
            await silent(reader, writer)

    return handle


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (answering(b"hello"), "response is not HTTP/2: received 'HTTP/1.1 200 OK"),
        (sending(b"SSH-2.0-OpenSSH\r\n"), "response is not HTTP/2: received 'SSH-2.0-OpenSSH"),
        (sending(b"", ends=True), "peer closed the connection without a response"),
        (
            sending(SETTINGS + h2_frame(6, b"12345678") * 10_000),
            "no end of the response in the first 65536 bytes",
        ),
        (sending(SETTINGS + h2_frame(3, b"\0\0\0\7", 1)), "call reset by the peer with REFUSED_STREAM"),
        (sending(SETTINGS + h2_frame(7, b"\0" * 8)), "connection ended by the peer: it shuts down"),
        (
            sending(SETTINGS + h2_frame(7, b"\0" * 7 + b"\x0b")),
            "connection ended by the peer: ENHANCE_YOUR_CALM",
        ),
        (
            sending(SETTINGS + h2_frame(7, b"\0\0\0\1" + bytes(4)), ends=True),
            "peer closed the connection without a response",
        ),
        (sending(SETTINGS + h2_frame(7, b"\0")), "response is not HTTP/2"),
        (sending(SETTINGS + h2_frame(1, b"\x88", 1, 5)), "gRPC status is '', expected OK"),
        (sending(SETTINGS + h2_frame(1, b"\x8d", 1, 5)), "HTTP status is 404, expected 200"),
    ],
)
def test_other_peers(handler: Handler, error: str) -> None:
    """Servers of other protocols, and those that break off or flood, fail with what they sent."""

    async def main() -> tuple[Outcome, str]:
        async with serving(handler) as port:
            return outcome_and_error(await probe_once(kind="grpc", address=f"127.0.0.1:{port}"))

    outcome, text = asyncio.run(main())
    assert outcome is Outcome.FAILED
    assert text.startswith(error)
    assert text.isprintable()


ANSWER = (
    h2_frame(1, b"\x88", 1, 4)
    + h2_frame(0, b"\0\0\0\0\2\x08\1", 1)
    + h2_frame(1, b"\0\x0bgrpc-status\x010", 1, 5)
)


@pytest.mark.parametrize("last_stream", [1, 2**31 - 1])
@pytest.mark.parametrize("before", range(4))
def test_a_server_that_shuts_down_answers_first(before: int, last_stream: int) -> None:
    """The announced end of a connection does not end the call, wherever it arrives."""
    frames = [SETTINGS, ANSWER[:10], ANSWER[10:26], ANSWER[26:]]
    frames.insert(before + 1, h2_frame(7, last_stream.to_bytes(4, "big") + bytes(4)))

    async def main() -> tuple[Outcome, str]:
        async with serving(sending(b"".join(frames), ends=True)) as port:
            return outcome_and_error(await probe_once(kind="grpc", address=f"127.0.0.1:{port}"))

    assert asyncio.run(main()) == (Outcome.OK, "None")


def test_a_server_without_http_2_over_tls(authority: trustme.CA, tmp_path: Path) -> None:
    """A TLS server that does not negotiate HTTP/2 is told from one that is down."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def main() -> tuple[Outcome, str]:
        async with serving(answering(b""), context) as port:
            address, ca = f"localhost:{port}", str(tmp_path / "ca.pem")
            return outcome_and_error(await probe_once(kind="grpc", address=address, tls=True, ca=ca))

    assert asyncio.run(main())[1].startswith("response is not HTTP/2: received 'HTTP/1.1 200 OK")
