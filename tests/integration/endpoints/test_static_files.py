"""The dashboard's files as a browser, a cache and an old client receive them."""

import gzip
import re
from collections.abc import Iterator
from email.message import Message
from typing import Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from tickertape.relay.endpoints.routes import DASHBOARD

from tests.support.clients.feed_client import PATIENCE
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer

PAGES: Final = {
    "/": "built/index.html",
    "/assets/built/app.js": "built/app.js",
    "/assets/built/app.css": "built/app.css",
}


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run a relay with its dashboard."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server, Relay(server.url) as running:
        yield running


def get(url: str, **headers: str) -> tuple[int, Message, bytes]:
    """Request a page; return status, headers and body as sent."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urlopen(Request(url, headers=named), timeout=PATIENCE) as answer:
            return answer.status, answer.headers, answer.read()
    except HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("accepted", ["gzip", "br, GZIP;q=0.5", "*"])
def test_a_client_that_accepts_gzip_gets_it(relay: Relay, path: str, accepted: str) -> None:
    """A client that accepts gzip receives the compressed file from disk, with a ``Vary`` header for
    caches.
    """
    code, headers, body = get(relay.url + path, accept_encoding=accepted)
    file = (DASHBOARD / PAGES[path]).read_bytes()
    assert (code, headers["content-encoding"], headers["vary"]) == (200, "gzip", "Accept-Encoding")
    assert gzip.decompress(body) == file
    assert int(headers["content-length"]) == len(body) < len(file) / 2


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("accepted", ["", "identity", "br", "gzip;q=0", "*, gzip;q=0", "gzip;q=much"])
def test_a_client_without_gzip_gets_the_plain_file(relay: Relay, path: str, accepted: str) -> None:
    """A client without gzip receives the plain file, with an ETag of its own."""
    _, packed, _ = get(relay.url + path, accept_encoding="gzip")
    code, headers, body = get(relay.url + path, accept_encoding=accepted)
    assert (code, headers["content-encoding"], headers["vary"]) == (200, None, "Accept-Encoding")
    assert body == (DASHBOARD / PAGES[path]).read_bytes()
    assert headers["etag"] != packed["etag"]


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("accepted", ["gzip", "identity"])
def test_what_the_browser_has_is_not_sent_again(relay: Relay, path: str, accepted: str) -> None:
    """A request with a matching ETag is 304 without a body, with the security headers."""
    _, first, _ = get(relay.url + path, accept_encoding=accepted)
    code, headers, body = get(relay.url + path, accept_encoding=accepted, if_none_match=first["etag"])
    assert (code, body, headers["etag"]) == (304, b"", first["etag"])
    assert headers["cache-control"] == "no-cache"
    assert "default-src 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    "requested", ["bytes=0-10", "bytes=9-", "bytes=99999999-", "bytes=a-b", "lines=1-2", ""]
)
def test_a_range_is_ignored(relay: Relay, requested: str) -> None:
    """A Range header is ignored, as RFC 9110, 14.2 allows; Starlette would reject an invalid one as plain
    text.
    """
    for path, name in PAGES.items():
        code, headers, body = get(relay.url + path, range=requested)
        assert (code, headers["accept-ranges"]) == (200, "none")
        assert body == (DASHBOARD / name).read_bytes()


def test_all_that_the_page_names_is_there() -> None:
    """Every script, style sheet and image that the dashboard requests exists."""
    text = (DASHBOARD / "built" / "index.html").read_text()
    named = re.findall(r'(?:src|href)="/assets/([^"]+)"', text)
    assert len(named) >= 5
    assert [name for name in named if not (DASHBOARD / name).is_file()] == []
