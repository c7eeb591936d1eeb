"""Whatever ends a connection, the client receives the reason, even while it is still sending.

Closing a socket with unread bytes resets it, and a reset discards what the client has not read yet.
"""

import re
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trustme

from tests.support.clients import forge
from tests.support.clients.attacker import bearer, count, get, masked, read_until, upgrade
from tests.support.clients.feed_client import PATIENCE
from tests.support.programs.faulty_program import TARGETS, subject
from tests.support.programs.relay_process import Relay, eventually
from tests.support.servers.nats_server import NatsServer

LIMITED_ADDRESS: Final = "127.1.2.3"
"""A loopback address with limits; 127.0.0.1 is exempt."""

SIZE: Final = 1_000_000
BEHIND: Final = ("with it", "later")
"""Bytes after a mistake are sent in the same write, or when the response has arrived but has not been
read.
"""

WITHOUT_UVLOOP: Final = (
    "import sys; sys.modules['uvloop'] = None; from tickertape.cli.main import main; sys.exit(main())"
)


TEXT: Final = masked(0x81, b" " * SIZE)
SMALL: Final = masked(0x81, b" " * 10_000) * (SIZE // 10_000)
"""The same number of bytes in messages that an unauthenticated client may send."""

BYTES: Final = b"x" * SIZE
MESSAGE: Final = partial(masked, 0x81)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Run one NATS server for all relays of this file; none of them publishes."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as running:
        yield running


@pytest.fixture(scope="module")
def relay(server: NatsServer) -> Iterator[Relay]:
    """Run a relay without tokens."""
    with Relay(server.url) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(server: NatsServer) -> Iterator[Relay]:
    """Run a relay that requires tokens and accepts two sockets per address."""
    env = {"TICKERTAPE_JWT_ALGORITHM": "HS256", "TICKERTAPE_JWT_KEY": forge.public_pem("HS256").decode()}
    with Relay(server.url, "--auth", "jwt", "--max-address-connections", "2", **env) as running:
        yield running


def received(data: bytes) -> bytes:
    """Return the payload of the close frame at the end of a server's frames; empty if there is none yet."""
    while len(data) >= 2:
        size, position = data[1], 2
        if size >= 126:
            position = 4 if size == 126 else 10
            size = int.from_bytes(data[2:position])
        if data[0] == 0x88:
            return data[position : position + size]
        data = data[position + size :]
    return b""


def answered(data: bytes) -> bytes:
    """Return the last HTTP response once it is complete."""
    head, found, body = re.split(rb"(?=HTTP/1\.1 \d{3} )", data)[-1].partition(b"\r\n\r\n")
    size = next(
        (one[16:] for one in head.lower().split(b"\r\n") if one.startswith(b"content-length: ")), None
    )
    return head + found + body if size is not None and len(body) == int(size) else b""


def last_message(
    link: socket.socket, mistake: bytes, behind: bytes, word: Callable[[bytes], bytes], *, later: bool = False
) -> bytes:
    """Send a mistake and more bytes after it; return the relay's last message, and expect an orderly end."""
    if later:
        link.sendall(mistake)
        deadline = time.monotonic() + PATIENCE
        while not word(link.recv(1 << 20, socket.MSG_PEEK)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        link.sendall(behind)
    else:
        link.sendall(mistake + behind)
    link.shutdown(socket.SHUT_WR)
    return word(read_all(link))


def read_all(link: socket.socket) -> bytes:
    """Read to the end; a reset is an error."""
    data = b""
    while more := link.recv(65_536):
        data += more
    return data


@contextmanager
def connected(
    relay: Relay, *headers: str, path: str = "/ws", mark: bytes = b'"done":true'
) -> Iterator[socket.socket]:
    """Connect a WebSocket, and read its first messages."""
    with socket.create_connection(relay.host_port, PATIENCE) as link:
        link.sendall(upgrade(path, *headers))
        read_until(link, mark)
        yield link


BROKEN: Final = {
    "too large": (b"\x81\xff" + (2**21).to_bytes(8) + b"\0\0\0\0", 1009),
    "fragments too large": (masked(0x01, b"x" * 60_000) + masked(0x00, b"x" * 60_000) * 20, 1009),
    "no continuation": (masked(0x01, b"x" * 60_000) * 2, 1002),
    "unmasked": (b"\x81\x02hi", 1002),
    "unknown opcode": (masked(0x83, b"x"), 1002),
    "reserved bit": (masked(0xC1, b"x"), 1002),
    "broken close": (masked(0x88, b"x"), 1002),
    "bad UTF-8": (MESSAGE(b"\xff\xfe"), 1007),
    "binary": (masked(0x82, b"x"), 1003),
    "close": (masked(0x88, b"\x03\xe8"), 1000),
    "no JSON": (MESSAGE(b"hello"), 4400),
    "bad filter": (MESSAGE(b'{"type":"subscribe","level":"LOUD"}'), 4409),
    "flood of pings": (masked(0x89, b"") * 400, 4429),
    "flood of messages": (MESSAGE(b'{"type":"ping"}') * 400, 4429),
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("name", BROKEN)
def test_a_client_receives_the_close_frame_after_its_mistake(relay: Relay, name: str, behind: str) -> None:
    """A client that sends a megabyte after its mistake receives the close frame."""
    mistake, code = BROKEN[name]
    with connected(relay) as link:
        output = last_message(link, mistake, TEXT, received, later=behind == "later")
    assert int.from_bytes(output[:2]) == code


@pytest.mark.parametrize("name", ["no JSON", "binary", "flood of pings"])
def test_also_behind_much_more(relay: Relay, name: str) -> None:
    """A client that floods the relay after its ``bye`` receives the close frame."""
    mistake, code = BROKEN[name]
    with connected(relay) as link:
        output = last_message(link, mistake, TEXT * 12, received)
    assert int.from_bytes(output[:2]) == code


def test_a_client_reads_that_the_relay_shuts_down(server: NatsServer) -> None:
    """Clients in the middle of a message receive 1001 when the relay shuts down."""
    with Relay(server.url, "--drain", str(PATIENCE)) as relay, connected(relay) as link:
        link.sendall(TEXT[:1000])
        relay.signal(signal.SIGTERM)
        output = last_message(link, b"", TEXT[1000:] + TEXT * 4, received, later=True)
        assert int.from_bytes(output[:2]) == 1001
        assert relay.wait() == 0


@pytest.mark.parametrize("behind", BEHIND)
def test_a_client_reads_that_the_relay_has_a_fault(server: NatsServer, behind: str) -> None:
    """A client whose input causes an exception receives 1011."""
    relay = Relay(server.url)
    relay.program = [sys.executable, "-m", "tests.support.programs.faulty_program", "relay"]
    path = f"/ws?subjects={subject(next(one for one in TARGETS if one.endswith('Connection._parse')))}"
    with relay, connected(relay, path=path, mark=b'"type":"subscribed"') as link:
        output = last_message(link, masked(0x89, b""), TEXT, received, later=behind == "later")
    assert int.from_bytes(output[:2]) == 1011


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize(
    ("first", "code"),
    [
        (MESSAGE(b'{"type":"auth","token":"x"}'), 4401),
        (MESSAGE(b'{"type":"ping"}'), 4401),
        (MESSAGE(b" " * 40_000), 1009),
        (b"\x81\xfe\x10\x00", 4408),
    ],
    ids=["bad token", "no token", "too large", "too late"],
)
def test_a_client_reads_why_it_gets_no_session(guarded: Relay, first: bytes, code: int, behind: str) -> None:
    """A client that gets no session receives the reason, before and after its token."""
    late = code == 4408
    with connected(guarded, mark=b"\r\n\r\n") as link:
        output = last_message(link, first, SMALL, received, later=late or behind == "later")
    assert int.from_bytes(output[:2]) == code


BODY: Final = f"Content-Length: {SIZE}"
REQUESTS: Final = {
    "no HTTP": (b"hello\r\n\r\n", 400),
    "body behind a GET": (get("/health", BODY), 400),
    "chunks behind a GET": (get("/health", "Transfer-Encoding: chunked"), 400),
    "POST": (get("/events", BODY, method="POST"), 405),
    "other version": (get("/").replace(b"HTTP/1.1", b"HTTP/2.0"), 505),
    "large head": (get("/", "X: " + "a" * 40_000), 431),
    "slow head": (b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", 408),
    "too many": (get("/health").replace(b"Connection: close\r\n", b"") * 18, 400),
    "no upgrade": (get("/ws"), 426),
    "not found": (get("/nothing"), 404),
    "answer": (get("/health"), 200),
    "page": (get("/"), 200),
    "HTTP/1.0": (b"GET /health HTTP/1.0\r\n\r\n", 200),
    "bad version": (upgrade("/ws").replace(b"Version: 13", b"Version: 8"), 426),
    "bad key": (upgrade("/ws").replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), 400),
    "bad query": (upgrade("/ws?level=LOUD"), 400),
    "no feed": (upgrade("/feed"), 404),
    "foreign page": (upgrade("/ws", "Origin: https://evil.example"), 403),
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("name", REQUESTS)
def test_a_client_reads_the_answer_that_ends_its_connection(relay: Relay, name: str, behind: str) -> None:
    """HTTP rejections before and after the head, and responses that close the connection, arrive."""
    request, status = REQUESTS[name]
    later = behind == "later" or status == 408
    with socket.create_connection(relay.host_port, PATIENCE) as link:
        output = last_message(link, request, BYTES, answered, later=later)
    assert output.startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("behind", BEHIND)
def test_a_bad_token_is_answered(guarded: Relay, behind: str) -> None:
    """An invalid token is answered with 401 before the upgrade."""
    with socket.create_connection(guarded.host_port, PATIENCE) as link:
        output = last_message(link, upgrade("/ws", bearer("x.y.z")), TEXT, answered, later=behind == "later")
    assert output.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize(
    ("option", "status"), [("--max-connections", 503), ("--max-address-connections", 429)]
)
def test_a_client_beyond_the_limit_is_answered(
    server: NatsServer, option: str, status: int, behind: str
) -> None:
    """The acceptor's rejection, sent before anything is parsed as HTTP, arrives."""
    with Relay(server.url, option, "1") as relay, ExitStack() as stack:
        for _ in range(2):
            link = socket.create_connection(relay.host_port, PATIENCE, (LIMITED_ADDRESS, 0))
            stack.enter_context(link)
        output = last_message(link, upgrade("/ws"), TEXT, answered, later=behind == "later")
    assert output.startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("name", ["no HTTP", "body behind a GET", "POST", "large head", "slow head"])
def test_the_ops_port_answers_too(relay: Relay, name: str, behind: str) -> None:
    """The ops port serves HTTP by the same rules."""
    request, status = REQUESTS[name]
    host, _, port = relay.ops_url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as link:
        output = last_message(link, request, BYTES, answered, later=behind == "later" or status == 408)
    assert output.startswith(b"HTTP/1.1 %d " % status)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Create a certificate authority."""
    return trustme.CA()


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def secured(
    request: pytest.FixtureRequest,
    server: NatsServer,
    authority: trustme.CA,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Relay]:
    """Run a relay with TLS on either event loop."""
    folder: Path = tmp_path_factory.mktemp("tls")
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    leaf.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    files = ("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"))
    relay = Relay(server.url, *files)
    if request.param == "asyncio":
        relay.program = [sys.executable, "-c", WITHOUT_UVLOOP]
    with relay:
        yield relay


@contextmanager
def securely(relay: Relay, authority: trustme.CA) -> Iterator[ssl.SSLSocket]:
    """Open a socket with TLS."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with (
        socket.create_connection(relay.host_port, PATIENCE) as link,
        context.wrap_socket(link, server_hostname="127.0.0.1", suppress_ragged_eofs=False) as tls,
    ):
        yield tls


@pytest.mark.parametrize("size", [0, SIZE, 10 * SIZE])
@pytest.mark.parametrize("name", ["too large", "unmasked", "bad UTF-8", "binary", "close", "flood of pings"])
def test_a_client_reads_the_close_frame_with_tls(
    secured: Relay, authority: trustme.CA, name: str, size: int
) -> None:
    """With TLS the close frame and the TLS closure arrive without waiting for the relay's timeout."""
    mistake, code = BROKEN[name]
    with securely(secured, authority) as link:
        link.sendall(upgrade("/ws"))
        read_until(link, b'"done":true')
        link.sendall(mistake + TEXT[:size])
        output = received(read_all(link))
    assert int.from_bytes(output[:2]) == code


@pytest.mark.parametrize("size", [0, SIZE, 10 * SIZE])
@pytest.mark.parametrize(
    "name", ["no HTTP", "body behind a GET", "large head", "no upgrade", "answer", "bad query"]
)
def test_a_client_reads_the_answer_with_tls(
    secured: Relay, authority: trustme.CA, name: str, size: int
) -> None:
    """With TLS the HTTP response arrives."""
    request, status = REQUESTS[name]
    with securely(secured, authority) as link:
        link.sendall(request + b"x" * size)
        output = answered(read_all(link))
    assert output.startswith(b"HTTP/1.1 %d " % status)


def test_clients_that_never_close_are_cut(server: NatsServer) -> None:
    """Misbehaving clients that never close are cut beyond a limit, and soon all of them."""
    most = 10
    with Relay(server.url, "--max-unauthenticated", str(most)) as relay, ExitStack() as stack:
        honest = stack.enter_context(connected(relay))
        for number in range(5 * most):
            link = stack.enter_context(connected(relay))
            link.sendall(BROKEN["binary"][0] if number % 2 else masked(0x89, b"") * 400)
        eventually(lambda: count(relay, "connections") <= 1 + most, "no more than the limit")
        assert count(relay, "sockets_unauthenticated") <= most
        eventually(lambda: count(relay, "sockets") == 1, "the relay has lost its patience with all")
        honest.sendall(MESSAGE(b'{"type":"ping","id":1}'))
        read_until(honest, b'"pong"')
