"""Findings about settings: one line per weakness, and none for secure settings."""

import os
from pathlib import Path
from typing import Any

import pytest
import trustme
from tickertape.relay.settings import RelaySettings

from tickertape.cli.check.settings import check_settings

SECRET = "an HS256 secret of more than thirty-two bytes"
GOOD: dict[str, Any] = {
    "auth": "jwt",
    "jwt_algorithm": "EdDSA",
    "jwt_key": "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
    "-----END PUBLIC KEY-----\n",
    "jwt_issuer": "https://issuer.example.com",
    "jwt_audience": "tickertape",
    "nats_url": "tls://nats.example.com:4222",
}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TICKERTAPE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def good(tmp_path: Path) -> dict[str, Any]:
    """Return settings without any finding, on an address that others can reach."""
    files = {}
    for name in ("revoked", "password"):
        files[name] = tmp_path / name
        files[name].write_text("x\n")
        files[name].chmod(0o600)
    return {
        **GOOD,
        **certificate(tmp_path),
        "host": "10.0.0.1",
        "jwt_revoked_file": files["revoked"],
        "nats_user": "relay",
        "nats_password_file": files["password"],
    }


def certificate(folder: Path) -> dict[str, Path]:
    """Return a certificate that is valid for a year, and its key."""
    made = trustme.CA().issue_cert("relay.example.com")
    cert, key = folder / "cert.pem", folder / "key.pem"
    made.cert_chain_pems[0].write_to_path(cert)
    made.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    return {"tls_cert": cert, "tls_key": key}


def lines(**values: Any) -> list[str]:
    """Return the findings about settings as lines."""
    return [str(finding) for finding in check_settings(RelaySettings(**values))]


def test_secure_settings_have_no_findings(good: dict[str, Any]) -> None:
    """Secure settings have no findings; a check that always reports something is soon ignored."""
    assert lines(**good) == []


@pytest.mark.parametrize(
    ("change", "output"),
    [
        ({"auth": "none"}, "error  host: 10.0.0.1 is reachable from other hosts and --auth none"),
        (
            {"auth": "none", "insecure": True},
            "error  --insecure: anyone who can reach 10.0.0.1:8080 can read all events",
        ),
        ({"auth": "none", "host": "127.0.0.1"}, "warn   --auth none: every user and program"),
        ({"ops_host": "0.0.0.0"}, "warn   --ops-host 0.0.0.0: metrics"),
        ({"jwt_algorithm": None}, "error  jwt_algorithm: required to verify tokens"),
        (
            {"jwt_algorithm": "HS256", "jwt_key": SECRET},
            "warn   --jwt-algorithm HS256: anyone who can verify",
        ),
        ({"jwt_audience": None}, "warn   no --jwt-audience"),
        ({"jwt_issuer": None}, "warn   no --jwt-issuer"),
        ({"jwt_revoked_file": None}, "warn   no --jwt-revoked-file"),
        ({"jwt_leeway": 120}, "warn   --jwt-leeway 120: synchronize the clocks"),
        (
            {"jwt_key": None, "jwt_jwks_url": "http://127.0.0.1:9/jwks.json"},
            "warn   --jwt-jwks-url uses http",
        ),
        ({"tls_cert": None, "tls_key": None}, "error  no --tls-cert: tokens and events cross"),
        (
            {"tls_cert": None, "tls_key": None, "trusted_proxies": "10.0.0.2"},
            "warn   no --tls-cert: tokens and events are sent in the clear between",
        ),
        ({"allowed_origins": "https://*.example.com"}, "warn   --allowed-origins https://*.example.com"),
        ({"allowed_origins": "vscode-webview://*"}, "warn   --allowed-origins vscode-webview://*: every app"),
        ({"allowed_origins": "null"}, "warn   --allowed-origins null: any page"),
        ({"allowed_origins": "http://app.example.com"}, "error  --allowed-origins http://app.example.com"),
        ({"allowed_origins": "http://[::.]"}, "error  --allowed-origins http://[::.]"),
        (
            {"trusted_proxies": "0.0.0.0/0"},
            "error  --trusted-proxies 0.0.0.0/0: any host on this network can spoof client addresses; "
            "list only the addresses of the proxies",
        ),
        (
            {"unlimited_addresses": "::/0"},
            "error  --unlimited-addresses ::/0: no host on this network is limited; list only addresses that "
            "many clients share",
        ),
        ({"client_rate": 0}, "warn   --client-rate 0"),
        ({"max_address_connections": 0}, "warn   --max-address-connections 0"),
        ({"max_subject_connections": 0}, "warn   --max-subject-connections 0"),
        (
            {"max_connections": 1000},
            "warn   --max-address-connections 1000 is not below --max-conn",
        ),
        (
            {"max_connections": 50, "max_address_connections": 49},
            "warn   --max-subject-connections 100 is not below --max-connections 50: one token can",
        ),
        ({"connection_rate": 0}, "warn   --connection-rate 0"),
        ({"address_rate": 0}, "warn   --address-rate 0"),
        ({"nats_url": None}, "warn   the embedded NATS server has no users"),
        (
            {"nats_url": "nats://nats.example.com:4222"},
            "error  nats://nats.example.com:4222: events and passwords",
        ),
        (
            {"nats_user": None, "nats_password_file": None},
            "error  tls://nats.example.com:4222: no credentials",
        ),
        (
            {"nats_user": None, "nats_password_file": None, "nats_url": "tls://a:hidden@nats.example.com"},
            "warn   the URL of tls://***@nats.example.com contains the password",
        ),
    ],
)
def test_each_weakness_has_one_line(good: dict[str, Any], change: dict[str, Any], output: str) -> None:
    """Each weakness adds exactly one line, with a hint."""
    found = lines(**{**good, **change})
    assert len(found) == 1, found
    assert found[0].startswith(output)
    assert "hidden" not in found[0]
    assert SECRET not in found[0]


@pytest.mark.parametrize("option", ["tls_key", "nats_password_file"])
def test_a_secret_that_others_can_read_is_reported(good: dict[str, Any], option: str) -> None:
    """Every file with a secret is reported if other users can read it, and can enter its folder."""
    good[option].chmod(0o644)
    good[option].parent.chmod(0o700)
    assert lines(**good) == []
    good[option].parent.chmod(0o755)
    (found,) = lines(**good)
    assert found.startswith(
        f"error  --{option.replace('_', '-')} {good[option]} is readable by other users; chmod 600"
    )


def test_a_list_that_others_can_write_is_reported(good: dict[str, Any]) -> None:
    """A revocation list that other users can write is reported, since they could remove entries."""
    good["jwt_revoked_file"].chmod(0o666)
    (found,) = lines(**good)
    assert "is writable by other users" in found


def test_a_loopback_relay_with_tokens_needs_no_certificate(good: dict[str, Any]) -> None:
    """A relay on loopback needs no certificate, because nothing crosses a network."""
    assert lines(**{**good, "host": "127.0.0.1", "tls_cert": None, "tls_key": None}) == []
