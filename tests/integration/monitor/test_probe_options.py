"""TLS options and secrets of the probes, with real certificates and files that change."""

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import TypeAdapter, ValidationError
from tickertape.producers.monitor.gateway.probe_health import Outcome
from tickertape.producers.monitor.probes import CannotProbe, Probe
from tickertape.producers.monitor.probes.options import tls as tls_options
from websockets.asyncio.server import ServerConnection, serve

from tests.support.patience import PATIENCE
from tests.support.probing import answering, outcome_and_error, probe_once, run_probe, serving, silent

KINDS_OF_URL = {"http": "http", "websocket": "ws"}


def server_context(
    ca: trustme.CA, name: str = "localhost", client_ca: trustme.CA | None = None
) -> ssl.SSLContext:
    """Return the context of a server; with ``client_ca`` it requires a certificate of that authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(name).configure_cert(context)
    if client_ca is not None:
        client_ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        # With TLS 1.3 the client learns of a rejection only after the handshake.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.mark.parametrize(
    ("name", "settings", "error"),
    [
        ("localhost", {"ca": "ca.pem"}, None),
        ("localhost", {}, "certificate rejected: "),
        ("other.test", {"ca": "ca.pem"}, "certificate rejected: Hostname mismatch"),
        ("other.test", {"ca": "ca.pem", "server_name": "other.test"}, None),
        ("other.test", {"ca": "ca.pem", "server_name": "other.test."}, None),
        ("other.test", {"skip_verify": True}, None),
    ],
)
@pytest.mark.parametrize("kind", ["tls", "http", "tcp", "websocket"])
def test_verification(
    kind: str,
    name: str,
    settings: dict[str, Any],
    error: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each kind verifies the certificate with its authorities and name, unless verification is turned off."""
    monkeypatch.chdir(tmp_path)
    ca = trustme.CA()
    ca.cert_pem.write_to_path("ca.pem")

    async def reply(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async def main() -> tuple[Outcome, str]:
        context = server_context(ca, name)
        if kind == "websocket":
            async with serve(reply, "127.0.0.1", 0, ssl=context) as server:
                url = f"wss://localhost:{next(iter(server.sockets)).getsockname()[1]}/"
                return outcome_and_error(await probe_once(kind=kind, url=url, **settings))
        async with serving(answering(b"") if kind == "http" else silent, context) as port:
            target: dict[str, Any] = {"address": f"localhost:{port}"}
            if kind == "http":
                target = {"url": f"https://localhost:{port}/"}
            tls: dict[str, Any] = {"tls": True} if kind == "tcp" else {}
            result = await probe_once(kind=kind, **target, **tls, **settings)
            if result is not None and result.outcome is Outcome.OK and kind in ("tls", "http"):
                assert result.expires is not None
            return outcome_and_error(result)

    outcome, text = asyncio.run(main())
    assert (outcome is Outcome.OK) is (error is None), text
    assert error is None or error in text


def test_a_client_certificate(tmp_path: Path) -> None:
    """A server that requires a client certificate accepts the configured one, in one file or in two."""
    ca, client_ca = trustme.CA(), trustme.CA()
    client = client_ca.issue_cert("monitor")
    names = {name: str(tmp_path / name) for name in ("ca.pem", "both.pem", "cert.pem", "key.pem")}
    ca.cert_pem.write_to_path(names["ca.pem"])
    client.private_key_and_cert_chain_pem.write_to_path(names["both.pem"])
    client.cert_chain_pems[0].write_to_path(names["cert.pem"])
    client.private_key_pem.write_to_path(names["key.pem"])
    given: list[dict[str, Any]] = [
        {"cert": names["both.pem"]},
        {"cert": names["cert.pem"], "key": names["key.pem"]},
        {},
    ]

    async def main() -> list[str]:
        async with serving(silent, server_context(ca, client_ca=client_ca)) as port:
            address = f"localhost:{port}"
            results = [
                await probe_once(kind="tls", address=address, ca=names["ca.pem"], **each) for each in given
            ]
        return [outcome_and_error(result)[1] for result in results]

    one, two, none = asyncio.run(main())
    assert (one, two) == ("None", "None")
    assert none.startswith("TLS failed: ")
    with pytest.raises(CannotProbe, match=r"client certificate .* cannot be loaded: .*use PEM files"):
        asyncio.run(
            probe_once(kind="tls", address="localhost:1", cert=names["cert.pem"], key=names["ca.pem"])
        )


@pytest.mark.parametrize("kind", ["tls", "tcp"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_rejected_client_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, version: ssl.TLSVersion
) -> None:
    """A server that rejects the client is a failure, with TLS 1.3 even after the handshake."""
    ca, other = trustme.CA(), trustme.CA()
    certs = {"good": ca.issue_cert("monitor"), "foreign": other.issue_cert("monitor")}
    for name, cert in certs.items():
        cert.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / name))
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    # A blocking server, because asyncio sends no alert when it rejects a certificate.
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        for _ in range(3):
            sock, _ = listener.accept()
            with contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True) as secure:
                while secure.recv(1024):
                    pass

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    address = f"localhost:{listener.getsockname()[1]}"
    settings: dict[str, Any] = {"kind": kind, "address": address, "ca": str(tmp_path / "ca.pem")}
    more: dict[str, Any] = {"tls": True} if kind == "tcp" else {}

    def error_of(**certificate: Any) -> str:
        return outcome_and_error(run_probe(**settings, **more, **certificate))[1]

    assert error_of(cert=str(tmp_path / "good")) == "None"
    monkeypatch.setattr(tls_options, "ACCEPTANCE_SECONDS", PATIENCE)
    assert error_of(cert=str(tmp_path / "foreign")) == "TLS failed: the peer sent the alert 'unknown ca'"
    assert error_of().startswith("TLS failed: the peer sent the alert ")
    thread.join()
    listener.close()


def test_a_server_that_closes_the_connection_at_the_client_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that accepts no certificate may close the connection without an alert."""
    monkeypatch.setattr(tls_options, "ACCEPTANCE_SECONDS", PATIENCE)
    ca, other = trustme.CA(), trustme.CA()
    other.issue_cert("monitor").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "foreign"))
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    async def main() -> tuple[Outcome, str]:
        async def dismiss(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            pass

        async with serving(dismiss, server_context(ca)) as port:
            files: dict[str, Any] = {"ca": str(tmp_path / "ca.pem"), "cert": str(tmp_path / "foreign")}
            return outcome_and_error(await probe_once(kind="tls", address=f"localhost:{port}", **files))

    error = "peer closed the connection when it received the certificate"
    assert asyncio.run(main()) == (Outcome.FAILED, error)


def test_replaced_authorities_are_used(tmp_path: Path) -> None:
    """The file of the authorities is loaded again when it has changed, and its absence is not a failure."""
    ca, path = trustme.CA(), tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))

    async def main() -> None:
        async with serving(silent, server_context(ca)) as port:
            probe: dict[str, Any] = {"kind": "tls", "address": f"localhost:{port}", "ca": str(path)}
            assert outcome_and_error(await probe_once(**probe))[0] is Outcome.FAILED
            ca.cert_pem.write_to_path(str(path))
            assert outcome_and_error(await probe_once(**probe))[0] is Outcome.OK
            path.write_text("no certificate")
            with pytest.raises(CannotProbe, match=r"ca\.pem has no PEM block; convert it to PEM"):
                await probe_once(**probe)
            path.unlink()
            with pytest.raises(CannotProbe, match=r"ca\.pem cannot be read: no such file or directory"):
                await probe_once(**probe)

    asyncio.run(main())


def test_secret_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets are read from variables and files for each probe, are sent, and are not shown."""
    monkeypatch.setenv("API_KEY", "key-one")
    monkeypatch.setenv("PASSWORD", "pass:word")
    (tmp_path / "token").write_text("token-two\n")
    requests: list[bytes] = []

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\nkey-one token-three")

    async def main() -> list[str]:
        async with serving(reply) as port:
            probe: dict[str, Any] = {
                "kind": "http",
                "url": f"http://127.0.0.1:{port}/",
                "headers_env": {"X-Key": "API_KEY"},
            }
            probe |= {"body_matches": "^$"}
            first = await probe_once(**probe, bearer_token_file=str(tmp_path / "token"))
            (tmp_path / "token").write_text("token-three")
            second = await probe_once(**probe, bearer_token_file=str(tmp_path / "token"))
            third = await probe_once(**probe, username="me", password_env="PASSWORD")
        return [outcome_and_error(result)[1] for result in (first, second, third)]

    assert asyncio.run(main()) == [
        "response does not match '^$': '*** token-three'",
        "response does not match '^$': '*** ***'",
        "response does not match '^$': '*** token-three'",
    ]
    assert all(b"X-Key: key-one\r\n" in request for request in requests)
    expected = [b"Bearer token-two", b"Bearer token-three", b"Basic bWU6cGFzczp3b3Jk"]
    for request, value in zip(requests, expected, strict=True):
        assert b"\r\nAuthorization: " + value + b"\r\n" in request
    (tmp_path / "token").write_bytes(b"\xff" * 10)
    with pytest.raises(CannotProbe, match="token is not UTF-8"):
        asyncio.run(
            probe_once(kind="http", url="http://127.0.0.1/", bearer_token_file=str(tmp_path / "token"))
        )


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"password_env": "A"}, "a password needs 'username'"),
        ({"username": "a", "bearer_token_env": "B"}, "'username' and 'bearer_token_env' are both set"),
        ({"headers": {"x-key": "1"}, "headers_env": {"X-Key": "A"}}, "header 'x-key' is set twice"),
        ({"headers": {"Authorization": "1"}, "username": "a"}, "header 'authorization' is set twice"),
    ],
)
def test_contradictory_secrets(settings: dict[str, Any], error: str) -> None:
    """Settings of which one would be ignored are rejected."""
    with pytest.raises(ValidationError, match=error):
        TypeAdapter(Probe).validate_python({"kind": "http", "url": "http://127.0.0.1/", **settings})


@pytest.mark.parametrize(
    ("kind", "target", "setting"),
    [
        ("http", {"url": "http://127.0.0.1:1/"}, "bearer_token_file"),
        ("tls", {"address": "127.0.0.1:1"}, "ca"),
        ("tls", {"address": "127.0.0.1:1"}, "cert"),
    ],
)
def test_a_pipe_or_a_device_blocks_no_monitor(
    tmp_path: Path, kind: str, target: dict[str, str], setting: str
) -> None:
    """What has no end, or waits for a writer, is not read: all other gateways would wait for it."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        settings: dict[str, Any] = {**target, setting: str(path)}
        with pytest.raises(CannotProbe, match=f"file {path} cannot be read: not a regular file"):
            asyncio.run(probe_once(kind=kind, **settings))


@pytest.mark.parametrize(
    "content", ["hunter22\nX-Injected: 1", "hunter22\r\nX: 1", "hunt\u00e9r22", "hunter22\x1b[0m", " \n"]
)
@pytest.mark.parametrize("setting", ["bearer_token_file", "headers_file"])
@pytest.mark.parametrize("kind", ["http", "websocket", "grpc"])
def test_a_secret_that_cannot_be_sent_is_not_shown(
    tmp_path: Path, kind: str, setting: str, content: str
) -> None:
    """A secret that is empty or has line breaks is no failure of the gateway; the error names its file."""
    (tmp_path / "secret").write_text(content)
    target: dict[str, Any] = (
        {"address": "127.0.0.1:1"} if kind == "grpc" else {"url": f"{KINDS_OF_URL[kind]}://127.0.0.1:1/"}
    )
    value: Any = str(tmp_path / "secret")
    if setting == "headers_file":
        value = {"X-Key": value}
    with pytest.raises(CannotProbe) as caught:
        run_probe(kind=kind, **target, **{setting: value})
    assert caught.value.message.startswith(f"secret file {tmp_path / 'secret'} ")
    assert "hunt" not in str(caught.value).replace(str(tmp_path), "")


@pytest.mark.parametrize("password", ["hunter22\x01141=Y", ""])
def test_a_password_of_fix_cannot_add_fields(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    """A password with the separator of fields is rejected."""
    monkeypatch.setenv("PASSWORD", password)
    settings: dict[str, Any] = {
        "address": "127.0.0.1:1",
        "sender_comp_id": "A",
        "target_comp_id": "B",
        "username": "me",
    }
    with pytest.raises(CannotProbe, match="environment variable PASSWORD"):
        run_probe(kind="fix", **settings, password_env="PASSWORD")
