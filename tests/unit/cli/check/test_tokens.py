"""Findings about keys, a token, and a page's origin."""

import asyncio
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from tickertape.relay.auth.token_service import TokenService
from tickertape.relay.settings import RelaySettings

from tests.support.clients.forge import SECRET, claims, jwk, public_pem, token
from tickertape.cli.check.finding import Finding
from tickertape.cli.check.tokens import check_origin, check_tokens, validate_origin

JWT: dict[str, Any] = {"auth": "jwt", "jwt_algorithm": "EdDSA", "jwt_key": public_pem("EdDSA").decode()}


def found(token_file: Path | None = None, **values: Any) -> dict[str, Finding]:
    """Return findings by name."""
    return {one.name: one for one in asyncio.run(check_tokens(RelaySettings(**values), token_file))}


def written(folder: Path, text: str) -> Path:
    """Write a token file."""
    path = folder / "one.jwt"
    path.write_text(text)
    return path


def lasting(**more: Any) -> dict[str, Any]:
    """Return the claims of a valid token."""
    now = int(time.time())
    return claims(**{"iat": now, "nbf": now, "exp": now + 3600, **more})


def test_without_tokens_there_is_no_finding(tmp_path: Path) -> None:
    """Without token authentication there is no finding, unless a token was given."""
    assert found() == {}
    one = found(written(tmp_path, "x"))["token"]
    assert (one.state, one.hint) == ("warn", "set --auth jwt to verify one")


def test_the_grants_of_certificates_are_loaded(tmp_path: Path) -> None:
    """The rules for certificates are read as the relay reads them, with and without tokens."""
    path = tmp_path / "grants.json"
    certificates = {"tls_client_ca": path, "tls_client_grants": path, "tls_cert": path}
    for settings in ({"auth": "certificate", **certificates}, {**JWT, **certificates}):
        path.write_text('[{"name": "cn:desk", "grant": {"subjects": [">"]}}]')
        assert found(**settings)["certificate_grants"].state == "ok"
        path.write_text('[{"name": "cn:desk", "grant": {"subjets": [">"]}}]')
        one = found(**settings)["certificate_grants"]
        assert (one.state, "rule 1: grant.subjets is unknown" in one.text) == ("error", True)


def test_a_valid_token_is_reported_with_its_grant(tmp_path: Path) -> None:
    """A valid token is reported with its subject, grant, rate and expiry, and is not shown itself."""
    grant = {
        "subjects": ["gateway.>", "log.>"],
        "deny": ["log.*.payroll"],
        "level": "INFO",
        "rate": 20,
        "connections": 3,
    }
    text = token("EdDSA", lasting(sub="alice", tickertape=grant))
    one = found(written(tmp_path, text + "\n"), **JWT)
    assert one["token_keys"].state == "ok"
    assert one["token"].state == "ok"
    assert (
        "alice may read gateway.>,log.>, except log.*.payroll, at level INFO or higher, at 20 log events/s, "
        "on up to 3 connections, until 2"
    ) in one["token"].text
    assert text not in str(one)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: token("EdDSA", lasting(exp=int(time.time()) - 9)), "(expired): the token expired at"),
        (lambda: token("EdDSA", lasting(), name="another"), "(signature): the token is not signed"),
        (lambda: token("HS256", lasting()), "(algorithm): the token's alg is 'HS256'"),
        (lambda: token("EdDSA", lasting(aud="else")), "(audience): "),
        (lambda: token("EdDSA", lasting(tickertape=None)), "(empty_grant): "),
        (lambda: "s3cret that is no token", "(malformed): the token is not a JWT of three"),
        (lambda: "", "is empty"),
    ],
)
def test_a_token_that_is_not_good_has_a_reason(tmp_path: Path, make: Any, why: str) -> None:
    """An invalid token is reported with the reason that its client gets, a hint, and without the token."""
    text = make()
    one = found(written(tmp_path, text), **JWT)["token"]
    assert one.state == "error"
    assert why in one.text
    assert one.hint
    assert "s3cret" not in str(one)
    assert not text or text not in str(one)


def test_a_token_file_that_is_not_there_is_reported() -> None:
    """A missing token file is reported with its path."""
    one = found(Path("/nowhere.jwt"), **JWT)["token"]
    assert (
        str(one)
        == "error  --token-file /nowhere.jwt cannot be read: No such file or directory; check the path"
    )


def test_a_revoked_token_is_reported(tmp_path: Path) -> None:
    """The relay's revocation list applies."""
    revoked = tmp_path / "revoked"
    revoked.write_text("sub:alice\n")
    file = written(tmp_path, token("EdDSA", lasting(sub="alice")))
    one = found(file, **JWT, jwt_revoked_file=revoked)
    assert one["revocations"].state == "ok"
    assert "(revoked)" in one["token"].text
    revoked.unlink()
    assert found(file, **JWT, jwt_revoked_file=revoked)["revocations"].state == "error"


@pytest.mark.parametrize(
    ("change", "output"),
    [
        ({"jwt_key": "no key"}, "error  "),
        ({"jwt_key": None, "jwt_key_file": Path("/nowhere.pem")}, "error  "),
        (
            {"jwt_key": None, "jwt_jwks_url": "http://127.0.0.1:1/jwks"},
            "error  cannot fetch the JWKS at http://127.0.0.1:1/jwks",
        ),
        (
            {"jwt_algorithm": "HS256", "jwt_key": SECRET.decode()},
            "ok     HS256: the key in --jwt-key is valid",
        ),
    ],
)
def test_keys_are_read_as_the_relay_would(change: dict[str, Any], output: str) -> None:
    """Keys are read from the configured source; a URL is requested once."""
    one = found(**{**JWT, **change})["token_keys"]
    assert str(one).startswith(output)
    assert (one.hint != "") == (one.state == "error")
    assert SECRET.decode() not in str(one)


def test_the_keys_of_an_address_are_fetched(tmp_path: Path) -> None:
    """Keys are fetched from the URL once, and a token signed with them is valid."""
    body = orjson.dumps({"keys": [jwk("EdDSA", kid="1")]})

    class Issuer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    requested: list[str] = []
    with HTTPServer(("127.0.0.1", 0), Issuer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/jwks.json"
        one = found(
            written(tmp_path, token("EdDSA", lasting())), **{**JWT, "jwt_key": None, "jwt_jwks_url": url}
        )
        server.shutdown()
        thread.join()
    assert requested == ["/jwks.json"]
    assert one["token_keys"].text == "EdDSA: the JWKS contains matching keys"
    assert one["token"].state == "ok", one


def test_settings_that_do_not_run_are_judged_elsewhere() -> None:
    """Invalid settings are reported once, elsewhere, and the given token is reported as not checked."""
    assert found(auth="jwt") == {}
    for change in ({"jwt_algorithm": None}, {"jwt_key": "no key"}):
        one = found(Path("/nowhere.jwt"), **{**JWT, **change})["token"]
        assert str(one) == "warn   --token-file was not verified; correct the other errors first"


def test_loading_fixed_keys_sends_no_request() -> None:
    """Fixed keys need no request."""
    asyncio.run(TokenService(RelaySettings(**JWT)).load())


@pytest.mark.parametrize(
    ("allowed", "page", "state", "why"),
    [
        ("https://app.example.com", "https://app.example.com", "ok", "listed in --allowed-origins"),
        ("https://*.example.com", "https://app.example.com", "ok", "listed in --allowed-origins"),
        ("", "http://127.0.0.1:8080", "ok", "same origin as the relay"),
        ("", "http://localhost:8080", "ok", "same origin as the relay"),
        ("", "https://app.example.com", "error", "--allowed-origins is empty"),
        (
            "https://a.example.com",
            "https://b.example.com",
            "error",
            "--allowed-origins has no matching entry",
        ),
        ("https://app.example.com", "http://app.example.com", "error", "scheme and port must match too"),
        (
            "https://app.example.com",
            "https://app.example.com:8443",
            "error",
            "scheme and port must match too",
        ),
        ("https://*.example.com", "https://example.com", "error", "not the domain itself"),
        ("https://*.example.com", "https://a.b.example.com", "error", "matches a single label"),
        ("https://*.example.com", "https://a.example.com:81", "error", "scheme and port must match too"),
        ("", "https://127.0.0.1:8080", "error", "--allowed-origins is empty"),
        ("app://name, null", "https://app.example.com", "error", "has no matching entry"),
        ("vscode-webview://*,file://", "https://app.example.com", "error", "has no matching entry"),
        ("null,https://app.example.com", "http://app.example.com", "error", "scheme and port must match"),
    ],
)
def test_an_origin_is_allowed_or_rejected_with_a_reason(
    allowed: str, page: str, state: str, why: str
) -> None:
    """The origin is checked with the relay's own rule, and a near match is named."""
    one = check_origin(RelaySettings(allowed_origins=allowed), page)
    assert one.state == state
    assert why in one.text
    assert (page in one.hint) == (state == "error")


@pytest.mark.parametrize(
    "text", ["https://app.example.com/", "app.example.com", "null", "ftp://a.example.com", "*"]
)
def test_what_no_browser_sends_is_bad_usage(text: str) -> None:
    """An origin that no browser sends is a usage error, with an example of a valid one."""
    with pytest.raises(ValueError, match="use the form https://app"):
        validate_origin(text)
