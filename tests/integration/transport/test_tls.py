"""A real relay with a certificate: dashboard, feed, slow handshakes, and a new certificate."""

import asyncio
import contextlib
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import trustme
from tickertape.relay.transport.acceptor import HANDSHAKE_TIMEOUT
from websockets.asyncio.client import connect

from tests.support.clients.feed_client import PATIENCE, run
from tests.support.programs.relay_process import Relay, eventually
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.nats_server import NatsServer

AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the paths of certificate and key."""
    folder = tmp_path_factory.mktemp("tls")
    issue(folder / "cert.pem", folder / "key.pem")
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory, files: tuple[Path, Path]) -> Iterator[Relay]:
    """Run a relay with the certificate."""
    options = ("--tls-cert", str(files[0]), "--tls-key", str(files[1]))
    with NatsServer(tmp_path_factory.mktemp("nats")) as server, Relay(server.url, *options) as running:
        yield running


def issue(certificate: Path, key: Path) -> None:
    """Write a new certificate with its key."""
    leaf = AUTHORITY.issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(key)
    leaf.cert_chain_pems[0].write_to_path(certificate)


def trusting() -> ssl.SSLContext:
    """Return the TLS context of a client that trusts the authority."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def serial(relay: Relay) -> object:
    """Return the serial number of the certificate that a new client receives."""
    with (
        socket.create_connection(relay.host_port, PATIENCE) as link,
        trusting().wrap_socket(link, server_hostname="127.0.0.1") as secured,
    ):
        certificate = secured.getpeercert()
        assert certificate is not None
        return certificate["serialNumber"]


def test_the_address_says_https(relay: Relay) -> None:
    """The dashboard is served over https, and the probes without TLS as before."""
    assert relay.url.startswith("https://127.0.0.1:")
    with urlopen(f"{relay.url}/", context=trusting(), timeout=PATIENCE) as answer:
        assert answer.status == 200
        assert b"<title>" in answer.read()
    with urlopen(f"{relay.ops_url}/livez", timeout=PATIENCE) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("path", ["/", "/health", "/events", "/nowhere"])
def test_browsers_are_told_to_stay_with_tls(relay: Relay, path: str) -> None:
    """Every response over TLS tells browsers to use only TLS; the ops port, without TLS, does not."""
    try:
        answer = urlopen(f"{relay.url}{path}", context=trusting(), timeout=PATIENCE)
    except HTTPError as error:
        answer = error
    with answer:
        assert answer.headers.get_all("strict-transport-security") == ["max-age=31536000"]
    with urlopen(f"{relay.ops_url}/livez", timeout=PATIENCE) as answer:
        assert answer.headers["strict-transport-security"] is None


def test_the_feed_is_wss(relay: Relay) -> None:
    """The feed is served over wss with the dashboard's own origin, whose scheme is https."""

    async def check() -> None:
        origin = relay.url
        async with connect(
            relay.ws_url,
            ssl=trusting(),
            proxy=None,
            ping_interval=None,
            additional_headers={"Origin": origin},
        ) as link:
            assert json.loads(await asyncio.wait_for(link.recv(), PATIENCE))["type"] == "welcome"
            await link.send("x" * 100_000)  # more than one record
            while json.loads(await asyncio.wait_for(link.recv(), PATIENCE))["type"] != "bye":
                pass

    assert relay.ws_url.startswith("wss://")
    run(check())


@pytest.mark.parametrize("piece", [10_000, 100, 7])
def test_every_handshake_is_answered(relay: Relay, piece: int) -> None:
    """A handshake is answered however early its first bytes arrive, and in however many pieces."""
    for _ in range(30):
        near, far = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trusting().wrap_bio(near, far, server_hostname="127.0.0.1")
        with socket.create_connection(relay.host_port, PATIENCE) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    hello = far.read()
                    for start in range(0, len(hello), piece):
                        link.sendall(hello[start : start + piece])
                    data = link.recv(65_536)
                    assert data, "cut"
                    near.write(data)


def test_a_client_that_speaks_no_tls_is_cut(relay: Relay) -> None:
    """A client without TLS is disconnected, since it could not read a response."""
    with socket.create_connection(relay.host_port, PATIENCE) as link:
        link.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            output = link.recv(1_000)
        except ConnectionResetError:
            output = b""
    assert not output.startswith(b"HTTP")


def test_clients_may_disconnect_anywhere_in_their_handshake(relay: Relay) -> None:
    """Clients that disconnect at any point of their handshake leave nothing behind, and log nothing."""
    folder = Path(f"/proc/{relay.pid}/fd")
    before, output = len(list(folder.iterdir())), len(relay.log)
    near, far = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting().wrap_bio(near, far, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = far.read()
    for cut in range(0, len(hello), 16):
        with socket.create_connection(relay.host_port, PATIENCE) as link:
            link.sendall(hello[:cut])
    eventually(lambda: len(list(folder.iterdir())) <= before, "their sockets are closed")
    assert not [line for line in relay.log[output:] if "INFO" not in line]


def test_time_passes_for_slow_clients_and_for_certificates(relay: Relay, files: tuple[Path, Path]) -> None:
    """An unfinished handshake is closed after five seconds; a new certificate is served within the same
    time.
    """
    began = time.monotonic()
    with socket.create_connection(relay.host_port, PATIENCE) as silent:
        former = serial(relay)
        issue(*files)
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(1) == b""
        assert time.monotonic() - began > HANDSHAKE_TIMEOUT - 1
    eventually(lambda: serial(relay) != former, "the new certificate is served")
    assert sum("loaded a new certificate from" in line for line in relay.log) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--tls-cert", "{folder}/none.pem"), "cannot read certificate {folder}/none.pem"),
        (("--tls-key", "{folder}/key.pem"), "tls_key: set without --tls-cert"),
        (("--tls-cert", "{folder}/key.pem"), "cannot use certificate {folder}/key.pem"),
    ],
)
def test_a_certificate_that_cannot_be_used_ends_the_start(
    files: tuple[Path, Path], options: tuple[str, ...], words: str
) -> None:
    """An unusable certificate ends the startup with one line and a hint."""
    folder = str(files[0].parent)
    given = [option.format(folder=folder) for option in options]
    done = run_command("serve", "--nats-url", "nats://127.0.0.1:1", "--port", "0", "--ops-port", "0", *given)
    assert done.returncode != 0
    assert words.format(folder=folder) in done.stderr
    assert len([line for line in done.stderr.splitlines() if " INFO " not in line]) == 1
    assert "Traceback" not in done.stderr
