"""The address of an issuer's keys, from metadata of a real server on loopback."""

import asyncio
import json
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import trustme
from tickertape.relay.auth.discovery import Discovery
from tickertape.relay.auth.keys import KeysError

KEYS = "https://keys.example.com/jwks"


class Server:
    """Server of metadata.

    Attributes:
        url: issuer that is served; its metadata names it unless a test replaces ``metadata``.
        paths: requested paths.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.paths: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.paths.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(server.metadata)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.server.server_port}"
        self.metadata = self.describe(jwks_uri=KEYS)

    def describe(self, **fields: Any) -> bytes:
        """Return metadata with fields."""
        return json.dumps({"issuer": self.url, **fields}).encode()

    def find(self, path: str = "") -> str:
        """Return the address of the keys of the issuer at a path."""
        return asyncio.run(Discovery(self.url + path, "ES256").find_keys())


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Return an authority that this process trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest, authority: trustme.CA) -> Iterator[Server]:
    """Run a server without and with TLS."""
    tls = None
    if request.param == "https":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
    found = Server(tls)
    thread = Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def test_the_metadata_names_the_keys(server: Server) -> None:
    """The metadata is below the issuer's own path, and names the keys, which may be on another host."""
    assert server.find() == KEYS
    server.metadata = server.describe(jwks_uri=KEYS, id_token_signing_alg_values_supported=["RS256", "ES256"])
    assert server.find() == KEYS
    for path in ("/realms/desk", "/realms/desk/"):
        server.metadata = json.dumps({"issuer": server.url + path, "jwks_uri": KEYS}).encode()
        assert server.find(path) == KEYS
    assert server.paths[-2:] == ["/realms/desk/.well-known/openid-configuration"] * 2


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (None, "is not a JSON object"),
        ({"issuer": None}, "is that of another issuer: None"),
        ({"issuer": "https://issuer.example.com"}, "is that of another issuer: 'https://issuer.example.com'"),
        ({"issuer": "{url}/"}, "is that of another issuer"),
        ({"jwks_uri": None}, "has no valid jwks_uri: it is missing"),
        ({"jwks_uri": "http://keys.example.com/jwks"}, "has no valid jwks_uri: the URL is http"),
        ({"jwks_uri": "file:///etc/passwd"}, "has no valid jwks_uri"),
        ({"jwks_uri": "https://user@keys.example.com/jwks"}, "has no valid jwks_uri"),
        ({"jwks_uri": "https://keys.example.com/" + "a" * 2_000}, "it has more than 2000 characters"),
        ({"id_token_signing_alg_values_supported": ["RS256"]}, "does not list ES256"),
        ({"id_token_signing_alg_values_supported": "ES256"}, "does not list ES256"),
    ],
)
def test_other_metadata_is_rejected(server: Server, changes: dict[str, Any] | None, problem: str) -> None:
    """Metadata of another issuer, without the algorithm, or with an unprotected address is rejected."""
    if changes is None:
        server.metadata = b"[]"
    else:
        fields = {"issuer": server.url, "jwks_uri": KEYS, **changes}
        if fields["issuer"] is not None:
            fields["issuer"] = fields["issuer"].format(url=server.url)
        server.metadata = json.dumps(fields).encode()
    with pytest.raises(KeysError, match=problem):
        server.find()


def test_ambiguous_metadata_is_rejected(server: Server) -> None:
    """A duplicate key, of which another parser may use the other value, makes the metadata invalid."""
    for key in ("issuer", "jwks_uri"):
        server.metadata = server.describe(jwks_uri=KEYS).replace(
            b"{", b'{"%s": "https://b.example", ' % key.encode(), 1
        )
        with pytest.raises(KeysError, match="is not a JSON object with unique keys"):
            server.find()


def test_the_keys_are_as_protected_as_the_issuer(server: Server) -> None:
    """The keys of an https issuer are not fetched by http, not even from loopback."""
    address = "http://127.0.0.1:8000/jwks"
    server.metadata = server.describe(jwks_uri=address)
    if server.url.startswith("https"):
        with pytest.raises(KeysError, match=r"has the jwks_uri http://127.0.0.1:8000/jwks without https"):
            server.find()
    else:
        assert server.find() == address
