"""Requests that are malformed or ambiguous: smuggling, folding, bodies, other methods, path traversal."""

import contextlib
import json
import socket
import struct
from collections.abc import Iterator
from itertools import product

import pytest

from tests.integration.attacks.conftest import Deploy
from tests.support.clients.attacker import SOURCE, answer_of, exchange, get, raw, until, upgrade
from tests.support.programs.deployment import KINDS, STANDALONE, Deployment

HEAD = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
SECOND = "GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
"""A request that another server could take for a body; its response contains ``connections``."""


@pytest.fixture(scope="module")
def relay(deploy: Deploy) -> Iterator[Deployment]:
    """Run a relay without tokens."""
    with deploy() as running:
        yield running


SIZE = f"Content-Length: {len(SECOND)}\r\n"
CHUNKED = f"{len(SECOND):x}\r\n{SECOND}\r\n0\r\n\r\n"
SMUGGLED = {
    "two lengths": f"{HEAD}Content-Length: 0\r\n{SIZE}\r\n{SECOND}",
    "two lengths, the other way": f"{HEAD}{SIZE}Content-Length: 0\r\n\r\n{SECOND}",
    "two equal lengths": f"{HEAD}{SIZE}{SIZE}\r\n{SECOND}",
    "a list of lengths": f"{HEAD}Content-Length: 0, {len(SECOND)}\r\n\r\n{SECOND}",
    "a length": f"{HEAD}{SIZE}\r\n{SECOND}",
    "a length with a sign": f"{HEAD}Content-Length: +{len(SECOND)}\r\n\r\n{SECOND}",
    "a negative length": f"{HEAD}Content-Length: -1\r\n\r\n{SECOND}",
    "a hexadecimal length": f"{HEAD}Content-Length: 0x{len(SECOND):x}\r\n\r\n{SECOND}",
    "a huge length": f"{HEAD}Content-Length: {2**64 + len(SECOND)}\r\n\r\n{SECOND}",
    "an empty length": f"{HEAD}Content-Length: \r\n\r\n{SECOND}",
    "chunked": f"{HEAD}Transfer-Encoding: chunked\r\n\r\n{CHUNKED}",
    "chunked, then a request": f"{HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SECOND}",
    "chunked and a length": f"{HEAD}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{SECOND}",
    "a length and chunked": f"{HEAD}{SIZE}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SECOND}",
    "not quite chunked": f"{HEAD}Transfer-Encoding: xchunked\r\n\r\n{SECOND}",
    "identity": f"{HEAD}Transfer-Encoding: identity\r\n\r\n{SECOND}",
    "chunked twice": f"{HEAD}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n{SECOND}",
    "a tab before chunked": f"{HEAD}Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n{SECOND}",
    "a space before the colon": f"{HEAD}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{SECOND}",
    "a space before a length's colon": f"{HEAD}Content-Length : {len(SECOND)}\r\n\r\n{SECOND}",
    "a folded header": f"{HEAD}X-Folded: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SECOND}",
    "a folded encoding": f"{HEAD}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{SECOND}",
    "bare line feeds": f"{HEAD}X: y\r\n\r\n{SECOND}".replace("\r\n", "\n"),
    "one bare line feed": f"{HEAD}X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SECOND}",
    "a bare carriage return": f"{HEAD}X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SECOND}",
    "a NUL": f"{HEAD}X: a\0b\r\n\r\n{SECOND}",
    "a NUL in a name": f"{HEAD}Content-\0Length: 5\r\n\r\n{SECOND}",
    "no colon": f"{HEAD}Content-Length 5\r\n\r\n{SECOND}",
    "no name": f"{HEAD}: chunked\r\n\r\n{SECOND}",
    "an upgrade with a length": upgrade("/ws", SIZE.strip()).decode() + SECOND,
    "an upgrade in chunks": upgrade("/ws", "Transfer-Encoding: chunked").decode() + CHUNKED,
    "another version": f"GET / HTTP/3.7\r\nHost: x\r\n\r\n{SECOND}",
    "the preface of HTTP/2": f"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SECOND}",
    "a space in the target": f"GET / x HTTP/1.1\r\nHost: x\r\n\r\n{SECOND}",
    "no HTTP at all": f"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n{SECOND}",
}


@pytest.mark.deployments(*STANDALONE)
@pytest.mark.parametrize("name", SMUGGLED)
def test_an_ambiguous_request_is_rejected(relay: Deployment, name: str) -> None:
    """An ambiguous request is 400 and closes the connection: what follows is never parsed as a request."""
    data = raw(relay, SMUGGLED[name].encode("latin-1"))
    assert b'"connections"' not in data
    assert data.count(b"HTTP/1.1 ") == 1
    answer = answer_of(data)
    assert answer.status == 400
    assert answer.headers["connection"] == "close"
    assert len(answer.body) == int(answer.headers["content-length"])
    assert set(json.loads(answer.body)) == {"code", "message"}


@pytest.mark.deployments(*(kind for kind in KINDS if kind not in STANDALONE))
@pytest.mark.parametrize("name", SMUGGLED)
def test_an_ambiguous_request_reaches_no_other_client(relay: Deployment, name: str) -> None:
    """A request that a proxy and a relay could split differently leaves no response for the next client.

    The proxy, or the host's server, may accept what is unambiguous to it.
    """
    with relay.connect(SOURCE) as link:
        link.sendall(SMUGGLED[name].encode("latin-1"))
        link.settimeout(1.0)  # the host's server waits for the rest of some requests
        with contextlib.suppress(TimeoutError):
            link.recv(65_536)
    for _ in range(2):
        answer = exchange(relay, get("/events?limit=1"))
        assert (answer.status, set(json.loads(answer.body))) == (200, {"cursor", "events", "more"})


@pytest.mark.deployments(*STANDALONE)
def test_two_requests_that_are_two_are_answered_in_order(relay: Deployment) -> None:
    """Pipelined requests are answered in order."""
    data = raw(relay, (HEAD + "\r\n" + SECOND).encode())
    assert data.index(b"<!doctype html>") < data.index(b'"connections"')


@pytest.mark.deployments(*STANDALONE)
def test_too_many_requests_immediately_are_rejected(relay: Deployment) -> None:
    """Too many pipelined requests are 400, once; a pending response is abandoned without a log line."""
    for _ in range(20):
        flood = raw(relay, f"{HEAD}\r\n".encode() * 1000)
        assert flood.count(b"HTTP/1.1 400 ") == 1
        assert flood.count(b"HTTP/1.1 200 ") <= 16


@pytest.mark.deployments(*STANDALONE)
def test_a_client_that_disconnects_early_is_not_logged(relay: Deployment) -> None:
    """A client that disconnects before its responses, or before an upgrade after them, causes no log line."""
    for _ in range(20):
        with relay.connect(SOURCE) as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.sendall(f"{HEAD}\r\n".encode() * 10)  # and send a reset
        data = raw(relay, f"{HEAD}\r\n".encode() + upgrade("/ws"))
        assert data.count(b"HTTP/1.1 400 ") == 1
        assert b"HTTP/1.1 101 " not in data


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "CONNECT", "TRACE", "PROPFIND"])
def test_no_request_body_is_accepted(relay: Deployment, method: str) -> None:
    """Other methods are 405, with or without a body, and nothing of the body is returned."""
    for target in ("/", "/events", "/ws", "/health"):
        target = "127.0.0.1:80" if method == "CONNECT" else target
        for more in ([], ["Content-Length: 6"], ["Transfer-Encoding: chunked"]):
            data = raw(relay, get(target, "X-Echo: MARK", *more, method=method) + b"MARKER")
            assert data.count(b"HTTP/1.1 ") == 1
            answer = answer_of(data)
            # A proxy rejects some of them itself.
            assert answer.status == 405 or (answer.status == 400 and relay.kind not in STANDALONE)
            assert b"MARK" not in data


UP = ["..", "%2e%2e", ".%2e", "%2E.", "%252e%252e", "..%00", "..;", "%c0%ae%c0%ae", "....", "%uff0e%uff0e"]
SLASHES = ["/", "%2f", "\\", "%5c", "//", "%252f", "/./"]


def test_no_path_leads_out_of_the_folder(relay: Deployment) -> None:
    """No path, encoded once or twice, with NULs or backslashes, returns a file of the machine or the
    relay.
    """
    targets = [
        "/assets//etc/passwd", "/assets/%2fetc%2fpasswd", "//etc/passwd", "/assets/%00", "/assets/app.js%00",
        "/assets/app.js%00.py", "/assets/", "/assets", "/assets/.", "/%00", "/assets/" + "a/" * 2000,
        "/assets/" + "a" * 5000, "/.git/config", "file:///etc/passwd", "*",
    ]  # fmt: skip
    for up, slash in product(UP, SLASHES):
        deep = f"{slash}{up}" * 12 + f"{slash}etc{slash}passwd"
        targets += [f"/assets{slash}{up}{slash}pages.py", f"/assets{deep}", f"/x/..{deep}"]
    for target in targets:
        answer = exchange(relay, get(target))
        assert answer.status in (400, 404, 307), target
        assert b"root:" not in answer.body, target
        assert b"import" not in answer.body, target


def test_an_absolute_target_does_not_bypass_the_host_check(relay: Deployment) -> None:
    """The host in an absolute target does not replace the one that is checked."""
    answer = exchange(relay, get("http://127.0.0.1/events", host="evil.com"))
    assert answer.status in (400, 403, 404)
    answer = exchange(relay, upgrade("http://127.0.0.1/ws", host="evil.com"))
    assert answer.status in (400, 403, 404)


def test_rejected_input_is_not_reflected(relay: Deployment) -> None:
    """Markup in a path, a query or a name is returned as JSON, which no browser executes."""
    markup = "%3Cscript%3Ealert(1)%3C/script%3E<script>alert(1)</script>"
    for request in (
        get(f"/{markup}"),
        get(f"/events?subjects={markup}"),
        upgrade(f"/{markup}"),
        upgrade(f"/ws?mode={markup}"),
        get("/", host="<script>.evil.com"),
        get("/", "Origin: <script>alert(1)</script>"),
    ):
        answer = exchange(relay, request)
        assert answer.status in (400, 403, 404)
        assert answer.headers["content-type"].startswith(("application/json", "text/plain"))
        if b"<script" in answer.body:
            assert answer.headers["content-type"] == "application/json"


def test_an_answer_header_cannot_be_split(relay: Deployment) -> None:
    """Line ends in reflected input, encoded or raw, add no header to the response."""
    evil = "%0d%0aX-Evil:%20yes"
    for request in (
        get(f"/events?cursor=x{evil}"),
        get("/events", f"Origin: https://a{evil}"),
        get(f"/assets{evil}"),
        get(f"//evil.com{evil}/.."),
        upgrade(f"/ws?level={evil}"),
        upgrade("/ws", f"Sec-WebSocket-Protocol: tickertape.v1{evil}"),
    ):
        data = until(relay, request, b"\r\n\r\n")
        assert b"\r\nX-Evil" not in data
        assert b"\r\nx-evil" not in data
