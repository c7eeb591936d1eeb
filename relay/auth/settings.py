"""Settings for the authentication of clients: the algorithm, the keys, the required claims, and certificates.

Like ``NatsSettings``, ``TokenSettings`` is a base class for the settings of commands.
"""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from tickertape.config.model import Settings
from tickertape.errors import ConfigurationError
from tickertape.urls import is_loopback, parse_url
from tickertape.validation import NOT_EMPTY

Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]

MAX_CLAIM: Final = 256
"""Maximum characters of the name of a claim."""

MAX_LEEWAY: Final = 300.0
"""Maximum seconds of leeway; a larger clock skew has to be fixed at its source."""


def check_issuer_url(text: str) -> str:
    """Return the URL of an issuer or of its keys unchanged if it is valid.

    Raises:
        ValueError: the URL is not valid, or not https (http is allowed for loopback addresses only).
    """
    url = parse_url(text, ("https", "http"), "https://issuer.example.com")
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise ValueError(
            "the URL is http, so an attacker on the network could replace the keys; use https "
            "(http is allowed for loopback addresses only)"
        )
    return text


def _checked_issuer(text: str) -> str:
    if "?" in text or "#" in text:
        raise ValueError("an issuer has neither a query nor a fragment")
    return check_issuer_url(text)


def _checked_claim(text: str) -> str:
    if not text.isprintable() or text != text.strip() or not 0 < len(text) <= MAX_CLAIM:
        raise ValueError(f"the name of a claim has 1 to {MAX_CLAIM} printable characters")
    return text


def _absent(value: Any) -> Any:
    # In a Compose file, `TICKERTAPE_JWT_KEY=${KEY:-}` sets an empty string if KEY is unset. Without a key
    # nothing is accepted; restrictions, which are optional, must not be lost in this way.
    return None if value == "" else value


_EMPTY = BeforeValidator(_absent)


class TokenSettings(Settings):
    """Settings for token verification."""

    jwt_algorithm: Annotated[Algorithm | None, _EMPTY] = Field(
        None, description="signature algorithm of tokens; all others are rejected"
    )
    jwt_key: Annotated[SecretStr | None, _EMPTY] = Field(
        None,
        description="key that verifies tokens: the secret for HS256, otherwise the public key as PEM or JWK; "
        "options are visible in process lists, so prefer the environment variable or the file",
    )
    jwt_key_file: Annotated[Path | None, _EMPTY] = Field(
        None, description="file that contains the key of --jwt-key"
    )
    jwt_jwks_url: Annotated[Annotated[str, AfterValidator(check_issuer_url)] | None, _EMPTY] = Field(
        None,
        description="URL of the issuer's keys (JWKS), refreshed after their max-age, or after 5 minutes",
    )
    oidc_issuer: Annotated[Annotated[str, AfterValidator(_checked_issuer)] | None, _EMPTY] = Field(
        None,
        description="OpenID Connect issuer of tokens (required iss), whose metadata names its keys; requires "
        "--jwt-audience",
    )
    jwt_grant_claim: Annotated[str, AfterValidator(_checked_claim)] = Field(
        "tickertape",
        description="name of the claim that contains the grant, such as https://example.com/tickertape for "
        "issuers that accept names with a URL only",
    )
    jwt_issuer: Annotated[str | None, NOT_EMPTY] = Field(None, description="required iss of tokens")
    jwt_audience: Annotated[str | None, NOT_EMPTY] = Field(
        None, description="value that the aud of tokens must contain"
    )
    jwt_leeway: float = Field(
        5.0,
        ge=0,
        le=MAX_LEEWAY,
        allow_inf_nan=False,
        # Not for exp: the session ends at exp anyway, and clients renew their token 60 s before it.
        description="seconds of clock skew that are tolerated for nbf and iat, but not for exp",
    )
    jwt_revoked_file: Annotated[Path | None, NOT_EMPTY] = Field(
        None,
        description="file of revoked tokens and certificates: one jti, jti:<id>, sub:<subject> or "
        "cert:<SHA-256 fingerprint> per line",
    )


class AuthSettings(TokenSettings):
    """Settings for the authentication of clients, by tokens or certificates."""

    auth: Literal["none", "jwt", "certificate"] = Field(
        "none",
        description="authentication of clients: none, jwt (a signed token), or certificate (a TLS client "
        "certificate, without which no client can connect)",
    )
    tls_client_ca: Annotated[Path | None, _EMPTY] = Field(
        None,
        description="CA of client certificates (PEM file); reloaded when the file changes. With --auth jwt, "
        "clients may present a certificate instead of a token, or both, which grants what both grant",
    )
    tls_client_grants: Annotated[Path | None, _EMPTY] = Field(
        None,
        description="file that maps names of client certificates to grants (JSON list of rules); "
        "reloaded when it changes",
    )


def auth_settings_error(settings: AuthSettings) -> ConfigurationError | None:
    """Return the error of settings that cannot authenticate clients, or None if they are valid."""
    certificates = (settings.tls_client_ca, settings.tls_client_grants)
    if settings.auth == "jwt" and (problem := token_settings_error(settings)) is not None:
        return problem
    if settings.auth == "none" and any(certificates):
        return ConfigurationError(
            "auth: --auth none accepts clients without a certificate, whatever --tls-client-ca says",
            "use --auth certificate, or --auth jwt to accept tokens too",
        )
    if "auth" not in settings.model_fields_set:
        # Otherwise a forgotten or misspelt --auth would let in every client.
        defaults = TokenSettings.model_construct()
        for name in TokenSettings.model_fields:
            if getattr(settings, name) != getattr(defaults, name):
                option = f"--{name.replace('_', '-')}"
                return ConfigurationError(
                    f"auth: without --auth, every client is accepted, whatever {option} says",
                    "use --auth jwt, or --auth none to confirm that",
                )
    if settings.auth == "certificate" or any(certificates):
        for name, value in zip(("tls_client_ca", "tls_client_grants"), certificates, strict=True):
            if value is None:
                return ConfigurationError(
                    f"{name}: required to authenticate clients by certificate",
                    "set both --tls-client-ca and --tls-client-grants",
                )
    return None


def token_settings_error(settings: TokenSettings) -> ConfigurationError | None:
    """Return the error of settings that cannot verify tokens, or None if they are valid.

    Args:
        settings: settings of a relay with ``--auth jwt``.
    """
    if settings.jwt_algorithm is None:
        return ConfigurationError(
            "jwt_algorithm: required to verify tokens", "set it to HS256, RS256, ES256 or EdDSA"
        )
    key_settings = [
        name
        for name, value in (
            ("jwt_key", settings.jwt_key),
            ("jwt_key_file", settings.jwt_key_file),
            ("jwt_jwks_url", settings.jwt_jwks_url),
            ("oidc_issuer", settings.oidc_issuer),
        )
        if value is not None
    ]
    if not key_settings:
        return ConfigurationError(
            "jwt_key: a key is required to verify tokens",
            "set jwt_key, jwt_key_file, jwt_jwks_url or oidc_issuer",
        )
    if len(key_settings) > 1:
        names = " and ".join(key_settings)
        return ConfigurationError(f"{key_settings[0]}: {names} are mutually exclusive", "keep exactly one")
    published = "jwt_jwks_url" if settings.jwt_jwks_url is not None else "oidc_issuer"
    if settings.jwt_algorithm == "HS256" and key_settings == [published]:
        return ConfigurationError(
            f"{published}: a JWKS is public and cannot contain an HS256 secret",
            "set jwt_key or jwt_key_file",
        )
    return None if settings.oidc_issuer is None else _oidc_error(settings)


def _oidc_error(settings: TokenSettings) -> ConfigurationError | None:
    if settings.jwt_audience is None:
        # An issuer has many clients; without an audience, the token of any of them would be accepted.
        return ConfigurationError(
            "jwt_audience: required with --oidc-issuer, which issues tokens for other services too",
            "set it to the audience (resource) of this relay",
        )
    if settings.jwt_issuer not in (None, settings.oidc_issuer):
        return ConfigurationError("jwt_issuer: differs from --oidc-issuer", "remove --jwt-issuer")
    return None
