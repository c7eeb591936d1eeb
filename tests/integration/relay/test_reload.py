"""SIGHUP: what a running relay reloads from real files, and what it keeps if they are invalid."""

import asyncio
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import orjson
import pytest
import trustme
from websockets.exceptions import InvalidStatus

from tests.support.clients import forge
from tests.support.clients.attacker import claims, count
from tests.support.clients.feed_client import follow, run
from tests.support.programs.relay_process import Relay, eventually
from tests.support.servers.nats_server import NatsServer

AUTHORITY: Final = trustme.CA()


class Files:
    """All files that a relay can reload.

    Args:
        folder: folder of the files.
    """

    def __init__(self, folder: Path) -> None:
        self.key = folder / "key.pem"
        self.revoked = folder / "revoked.txt"
        self.level = folder / "level.txt"
        self.certificate = folder / "cert.pem"
        self.private = folder / "private.pem"
        self.key.write_bytes(forge.public_pem("ES256", "first"))
        self.revoked.write_text("")
        self.level.write_text("INFO\n")
        self.issue()

    def issue(self) -> None:
        """Write a new certificate."""
        leaf = AUTHORITY.issue_cert("127.0.0.1")
        leaf.private_key_pem.write_to_path(self.private)
        leaf.cert_chain_pems[0].write_to_path(self.certificate)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Write valid files."""
    return Files(tmp_path)


@pytest.fixture
def relay(nats_server: NatsServer, files: Files) -> Iterator[Relay]:
    """Run a relay with all of them except the certificate."""
    options = ["--auth", "jwt", "--jwt-algorithm", "ES256", "--jwt-key-file", str(files.key)]
    options += ["--jwt-revoked-file", str(files.revoked), "--log-level-file", str(files.level)]
    with Relay(nats_server.url, *options) as running:
        yield running


def token(key: str, **more: object) -> str:
    """Return a token signed with a key."""
    return forge.token("ES256", claims(**more), name=key)


def reload(relay: Relay) -> str:
    """Make a relay reload its files; return its log lines about that."""
    before = sum(" reload: " in text for text in relay.log)
    relay.signal(signal.SIGHUP)

    def output() -> list[str]:
        return [text for text in relay.log if " reload: " in text][before:]

    eventually(lambda: bool(output()), "the relay says what it has read")
    (text,) = output()
    return text.split(None, 2)[2].strip()


def let_in(relay: Relay, key: str) -> bool:
    """Return whether a token signed with a key is accepted."""

    async def check() -> bool:
        try:
            async with follow(relay.ws_url, token=token(key), protocol=False):
                return True
        except InvalidStatus as error:
            if error.response.status_code not in (401, 503):  # 503: the key may be available in a second
                raise
            return False

    return run(check())


def test_another_key_counts(relay: Relay, files: Files) -> None:
    """A new key replaces the old one for new sessions; existing sessions continue."""

    async def check() -> None:
        async with follow(relay.ws_url, token=token("first")) as feed:
            files.key.write_bytes(forge.public_pem("ES256", "second"))
            assert not await asyncio.to_thread(let_in, relay, "second")
            output = await asyncio.to_thread(reload, relay)
            assert output == f"INFO    reload: key file {files.key}, 0 revocations, log level info"
            assert await asyncio.to_thread(let_in, relay, "second")
            assert not await asyncio.to_thread(let_in, relay, "first")
            await feed.send_message(type="ping", id=7)
            await feed.until(lambda: feed.messages[-1].type == "pong")

    run(check())


def test_a_key_that_cannot_be_used_changes_nothing(relay: Relay, files: Files) -> None:
    """An invalid key changes nothing and is logged with the reason; the other files take effect."""
    files.key.write_text("-----BEGIN PUBLIC KEY-----\nhalf of")
    files.revoked.write_text("sub:mallory\n")
    output = reload(relay)
    assert output.startswith("ERROR   reload: ")
    assert f"{files.key} contains no key for ES256" in output
    assert output.endswith("the previous content stays in force. Reloaded: 1 revocation, log level info")
    assert let_in(relay, "first")
    files.key.unlink()
    assert "No such file" in reload(relay)
    assert let_in(relay, "first")


def test_a_revocation_ends_its_session_immediately(relay: Relay, files: Files) -> None:
    """A revocation ends its session immediately, and an invalid list leaves earlier revocations in effect."""

    async def check() -> None:
        async with follow(relay.ws_url, token=token("first", sub="mallory")) as feed:
            files.revoked.write_text("sub:mallory\n")
            await asyncio.to_thread(reload, relay)
            assert await feed.closed() == 4401

    run(check())
    assert count(relay, "auth_source_valid", source="revocations") == 1
    files.revoked.write_bytes(b"\xff\xfe")
    assert "is not UTF-8" in reload(relay)
    assert count(relay, "auth_source_valid", source="revocations") == 0
    files.revoked.write_text("SUB:mallory\n")
    assert "line 1 of revocation file" in reload(relay)
    assert count(relay, "auth_source_valid", source="revocations") == 0
    assert count(relay, "auth_source_valid", source="keys") == 1

    async def again() -> None:
        with pytest.raises(InvalidStatus):
            async with follow(relay.ws_url, token=token("first", sub="mallory"), protocol=False):
                pass

    run(again())


def test_a_log_level_counts_from_then_on(relay: Relay, files: Files) -> None:
    """The log level changes with its file; an unknown word changes nothing."""
    files.level.write_text("error")
    files.key.write_bytes(b"")  # so that each reload logs something at that level too
    assert reload(relay).endswith("log level error")
    assert not let_in(relay, "stranger")
    assert reload(relay).endswith("log level error")
    assert not any("rejected" in text for text in relay.log)
    files.level.write_text("chatty")
    assert "'chatty'; use one of debug, info, warning, error" in reload(relay)
    files.key.write_bytes(forge.public_pem("ES256", "first"))
    files.level.write_text("debug")
    assert reload(relay).endswith("log level debug")
    assert not let_in(relay, "stranger")
    relay.until_logged("rejected client ")


def test_an_invalid_level_ends_the_startup(nats_server: NatsServer, files: Files) -> None:
    """An invalid level ends the startup with an error that lists the valid ones."""
    files.level.write_text("")
    relay = Relay(nats_server.url, "--log-level-file", str(files.level))
    with pytest.raises(RuntimeError, match="use one of debug"):
        relay.start()


def test_a_key_set_is_fetched_immediately(nats_server: NatsServer) -> None:
    """A JWKS is fetched immediately; while the URL fails, the previous keys stay in effect."""
    name: list[str] = ["first"]

    class Issuer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys = [forge.jwk("ES256", key, use="sig", alg="ES256") for key in name]
            body = orjson.dumps({"keys": keys})
            self.send_response(200 if name else 500)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Issuer)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/jwks.json"
    try:
        options = ("--auth", "jwt", "--jwt-algorithm", "ES256", "--jwt-jwks-url", url)
        with Relay(nats_server.url, *options) as relay:
            eventually(lambda: let_in(relay, "first"), "the keys are there")
            name[:] = ["second"]
            assert reload(relay) == f"INFO    reload: keys from {url}"
            assert let_in(relay, "second")
            name.clear()
            assert f"the JWKS at {url} returned HTTP 500" in reload(relay)
            assert let_in(relay, "second")
    finally:
        server.shutdown()
        server.server_close()


def test_a_certificate_is_served_immediately(nats_server: NatsServer, files: Files) -> None:
    """A new certificate is served immediately, and an invalid one leaves the previous one."""

    def serial(relay: Relay) -> object:
        context = ssl.create_default_context()
        AUTHORITY.configure_trust(context)
        with (
            socket.create_connection(relay.host_port, 10) as link,
            context.wrap_socket(link, server_hostname="127.0.0.1") as secured,
        ):
            certificate = secured.getpeercert()
            assert certificate is not None
            return certificate["serialNumber"]

    options = ("--tls-cert", str(files.certificate), "--tls-key", str(files.private))
    with Relay(nats_server.url, *options) as relay:
        former = serial(relay)
        files.issue()
        assert reload(relay) == f"INFO    reload: certificate {files.certificate}"
        assert serial(relay) != former
        former = serial(relay)
        files.private.write_text("no key")
        output = reload(relay)
        assert f"cannot use certificate {files.certificate}" in output
        assert output.endswith("Reloaded: nothing")
        assert serial(relay) == former


def test_a_relay_without_files_logs_that(nats_server: NatsServer) -> None:
    """A relay without reloadable files logs that and keeps running."""
    with Relay(nats_server.url) as relay:
        assert "lists come from files" in reload(relay)
        assert relay.stop() == 0
