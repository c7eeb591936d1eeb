"""What an operator sets for tokens: the algorithm, where the keys are, and what a token must say.

A base for the settings of commands that verify tokens; it stands beside ``NatsSettings``.
"""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from tickertape.errors import ConfigurationError
from tickertape.urls import is_loopback, parse_url

Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]

MAX_LEEWAY: Final = 300.0
"""Seconds; clocks that differ by more have to be mended."""


def _checked_url(text: str) -> str:
    url = parse_url(text, ("https", "http"), "https://issuer.example.com/jwks.json")
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise ValueError(
            "the JWKS address is http, so anybody on the way could send keys of theirs; use https "
            "(http is for a loopback address only)"
        )
    return text


def _absent(value: Any) -> Any:
    # `TICKERTAPE_JWT_KEY=${KEY:-}` of a compose file is an empty text where nothing is set.
    return None if value == "" else value


_EMPTY = BeforeValidator(_absent)


class TokenSettings(BaseSettings):
    """How tokens are verified; each also as ``TICKERTAPE_<NAME>``."""

    # An error would show what was given, and some of it is secret.
    model_config = SettingsConfigDict(
        env_prefix="TICKERTAPE_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    jwt_algorithm: Annotated[Algorithm | None, _EMPTY] = Field(
        None, description="the one algorithm that tokens are signed with"
    )
    jwt_key: Annotated[SecretStr | None, _EMPTY] = Field(
        None,
        description="HS256: the secret; others: the public key as PEM or JWK. A process list shows what is "
        "given here, so prefer the variable or the file",
    )
    jwt_key_file: Annotated[Path | None, _EMPTY] = Field(None, description="a file with the same")
    jwt_jwks_url: Annotated[Annotated[str, AfterValidator(_checked_url)] | None, _EMPTY] = Field(
        None, description="address of the issuer's keys (JWKS), fetched anew every 5 minutes"
    )
    jwt_issuer: Annotated[str | None, _EMPTY] = Field(None, description="the iss that a token must have")
    jwt_audience: Annotated[str | None, _EMPTY] = Field(
        None, description="the aud that a token must have among its own"
    )
    jwt_leeway: float = Field(
        5.0,
        ge=0,
        le=MAX_LEEWAY,
        allow_inf_nan=False,
        # Not for exp: the session ends then anyway, and clients renew 60 s ahead.
        description="seconds of clock difference that nbf and iat are allowed; exp is strict",
    )
    jwt_revoked_file: Annotated[Path | None, _EMPTY] = Field(
        None, description="a file of revoked tokens: a jti, jti:<id> or sub:<subject> per line"
    )


def token_settings_error(settings: TokenSettings) -> ConfigurationError | None:
    """Return the error of settings that lack, or have too much, to verify tokens; None when they are fine.

    Args:
        settings: of a relay with ``--auth jwt``.
    """
    if settings.jwt_algorithm is None:
        return ConfigurationError(
            "jwt_algorithm: verifying tokens needs it", "one of HS256, RS256, ES256, EdDSA"
        )
    given = [
        name
        for name, value in (
            ("jwt_key", settings.jwt_key),
            ("jwt_key_file", settings.jwt_key_file),
            ("jwt_jwks_url", settings.jwt_jwks_url),
        )
        if value is not None
    ]
    if not given:
        return ConfigurationError(
            "jwt_key: verifying tokens needs a key", "give jwt_key, jwt_key_file or jwt_jwks_url"
        )
    if len(given) > 1:
        return ConfigurationError(f"{given[0]}: {' and '.join(given)} are given", "keep exactly one")
    if settings.jwt_algorithm == "HS256" and settings.jwt_jwks_url is not None:
        return ConfigurationError(
            "jwt_jwks_url: a JWKS is public, so it holds no HS256 secret", "give jwt_key or jwt_key_file"
        )
    return None
