"""Settings for verifying tokens."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tickertape.relay.auth.settings import (
    AuthSettings,
    TokenSettings,
    auth_settings_error,
    token_settings_error,
)

from tickertape.config.resolve import SettingsError, load
from tickertape.nats.settings import NatsSettings


class CombinedSettings(NatsSettings, TokenSettings):
    """NATS and token settings in one class, as in the relay's settings."""


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CombinedSettings.model_fields:
        monkeypatch.delenv(f"TICKERTAPE_{name.upper()}", raising=False)


def settings(**values: Any) -> TokenSettings:
    """Return token settings with these values."""
    return TokenSettings(**values)


def test_only_the_leeway_and_the_claim_have_defaults() -> None:
    """Only the leeway and the name of the claim have defaults."""
    found = settings()
    assert found.jwt_leeway == 5.0
    assert found.jwt_grant_claim == "tickertape"
    assert all(value is None for name, value in found if name not in ("jwt_leeway", "jwt_grant_claim"))


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting is an environment variable with the prefix, and an empty key counts as unset."""
    monkeypatch.setenv("TICKERTAPE_NATS_URL", "nats://a:4222")
    monkeypatch.setenv("TICKERTAPE_JWT_ALGORITHM", "EdDSA")
    monkeypatch.setenv("TICKERTAPE_JWT_KEY_FILE", "/keys/public.pem")
    for name in ("KEY", "JWKS_URL"):
        monkeypatch.setenv(f"TICKERTAPE_JWT_{name}", "")
    found = load(CombinedSettings, {})
    assert (found.nats_url, found.jwt_algorithm) == ("nats://a:4222", "EdDSA")
    assert found.jwt_key_file == Path("/keys/public.pem")
    unset = ("jwt_key", "jwt_jwks_url", "jwt_issuer", "jwt_audience", "jwt_revoked_file")
    assert [getattr(found, name) for name in unset] == [None] * 5
    assert token_settings_error(found) is None


@pytest.mark.parametrize("name", ["ISSUER", "AUDIENCE", "REVOKED_FILE"])
def test_an_empty_restriction_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An empty variable of a restriction is an error, since the restriction would be lost silently."""
    monkeypatch.setenv(f"TICKERTAPE_JWT_{name}", "")
    with pytest.raises(SettingsError, match=f"TICKERTAPE_JWT_{name}: empty, which would drop a restriction"):
        load(CombinedSettings, {})


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example.com/jwks.json",
        "https://issuer.example.com:8443/keys?version=2",
        "http://127.0.0.1:8000/jwks",
        "http://localhost/jwks",
        "http://[::1]:1/jwks",
    ],
)
def test_secure_jwks_urls_are_accepted(url: str) -> None:
    """A JWKS URL may be HTTPS, or HTTP on loopback, where it cannot be tampered with."""
    assert settings(jwt_jwks_url=url).jwt_jwks_url == url


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"jwt_algorithm": "none"}, "'HS256'"),
        ({"jwt_algorithm": "hs256"}, "'HS256'"),
        ({"jwt_algorithm": "RS512"}, "'HS256'"),
        ({"jwt_jwks_url": "http://issuer.example.com/jwks"}, "use https"),
        ({"jwt_jwks_url": "http://localhost.example.com/jwks"}, "use https"),
        ({"jwt_jwks_url": "file:///etc/passwd"}, "write it as"),
        ({"jwt_jwks_url": "issuer.example.com"}, "write it as"),
        ({"jwt_jwks_url": "https://"}, "write it as"),
        ({"jwt_jwks_url": "https://[::1"}, "write it as"),
        ({"jwt_jwks_url": "https://a:99999/"}, "write it as"),
        ({"jwt_jwks_url": "https://a b/"}, "write it as"),
        ({"jwt_jwks_url": "https://me:hunter2@issuer.example.com/"}, "remove the user"),
        ({"jwt_leeway": -1}, "greater than or equal to 0"),
        ({"jwt_leeway": 301}, "less than or equal to 300"),
        ({"jwt_leeway": "nan"}, "finite"),
    ],
)
def test_invalid_settings_are_rejected(values: dict[str, Any], text: str) -> None:
    """An invalid setting is an error that states the expected form and does not show secrets."""
    with pytest.raises(ValidationError, match=text) as caught:
        settings(**values)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "jwt_algorithm: "),
        ({"jwt_key": "x"}, "jwt_algorithm: "),
        ({"jwt_algorithm": "HS256"}, "jwt_key: a key is required to verify tokens"),
        ({"jwt_algorithm": "HS256", "jwt_key": "x", "jwt_key_file": "y"}, "jwt_key and jwt_key_file"),
        ({"jwt_algorithm": "RS256", "jwt_key": "x", "jwt_jwks_url": "https://a/"}, "keep exactly one"),
        ({"jwt_algorithm": "HS256", "jwt_jwks_url": "https://a/"}, "a JWKS is public"),
    ],
)
def test_missing_settings_are_reported(values: dict[str, Any], text: str) -> None:
    """A missing or conflicting setting is reported in one line."""
    problem = token_settings_error(settings(**values))
    assert problem is not None
    assert text in str(problem)
    assert "\n" not in str(problem)


@pytest.mark.parametrize(
    "values",
    [
        {"jwt_algorithm": "HS256", "jwt_key": "x"},
        {"jwt_algorithm": "ES256", "jwt_key_file": "x"},
        {"jwt_algorithm": "RS256", "jwt_jwks_url": "https://a/"},
    ],
)
def test_one_key_is_enough(values: dict[str, Any]) -> None:
    """One key from any of the three sources is enough."""
    assert token_settings_error(settings(**values)) is None


def test_a_secret_is_not_shown() -> None:
    """The secret is not part of any text form of the settings."""
    found = settings(jwt_key="hunter2-hunter2")
    assert "hunter2" not in f"{found} {found!r} {found.model_dump()} {found.model_dump_json()}"


OIDC: dict[str, Any] = {
    "jwt_algorithm": "ES256",
    "oidc_issuer": "https://issuer.example.com/realms/desk",
    "jwt_audience": "desk",
}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"jwt_issuer": OIDC["oidc_issuer"]}, None),
        ({"jwt_audience": None}, "jwt_audience: required with --oidc-issuer"),
        ({"jwt_issuer": "https://issuer.example.com/realms/desk/"}, "jwt_issuer: differs from --oidc-issuer"),
        ({"jwt_algorithm": None}, "jwt_algorithm: required"),
        ({"jwt_algorithm": "HS256"}, "oidc_issuer: a JWKS is public"),
        ({"jwt_jwks_url": "https://a/jwks"}, "jwt_jwks_url and oidc_issuer are mutually exclusive"),
    ],
)
def test_an_issuer_needs_an_audience_and_no_other_key(changes: dict[str, Any], problem: str | None) -> None:
    """Tokens of an issuer are accepted for one audience and by the issuer's own keys only."""
    error = token_settings_error(settings(**{**OIDC, **changes}))
    assert error is None if problem is None else problem in str(error)


@pytest.mark.parametrize(
    "values",
    [
        {"oidc_issuer": "http://issuer.example.com"},
        {"oidc_issuer": "https://issuer.example.com?a=b"},
        {"oidc_issuer": "https://issuer.example.com/#a"},
        {"oidc_issuer": "https://user@issuer.example.com"},
        {"oidc_issuer": "issuer.example.com"},
        {"jwt_grant_claim": ""},
        {"jwt_grant_claim": " a"},
        {"jwt_grant_claim": "a\n"},
        {"jwt_grant_claim": "a" * 257},
    ],
)
def test_invalid_issuers_and_claims_are_rejected(values: dict[str, str]) -> None:
    """Issuers without https or with other parts, and names that no claim has, are errors."""
    with pytest.raises(ValidationError):
        settings(**values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jwt_algorithm", "EdDSA"), ("jwt_key", "x"), ("jwt_key_file", "x"), ("jwt_jwks_url", "https://a/"),
        ("oidc_issuer", "https://a/"), ("jwt_issuer", "x"), ("jwt_audience", "x"), ("jwt_revoked_file", "x"),
    ],
)  # fmt: skip
def test_restrictions_of_tokens_need_a_kind_of_authentication(name: str, value: str) -> None:
    """Where tokens are restricted, a forgotten or misspelt ``auth`` does not accept every client."""
    problem = auth_settings_error(AuthSettings.model_validate({name: value}))
    assert problem is not None
    assert f"whatever --{name.replace('_', '-')} says" in str(problem)
    assert auth_settings_error(AuthSettings.model_validate({name: value, "auth": "none"})) is None
    assert auth_settings_error(AuthSettings()) is None
