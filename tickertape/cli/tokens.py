"""``tickertape token``: mint a token, inspect a token, or generate a key."""

import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import orjson
from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveInt, model_validator

from tickertape.config.model import Mark, Positional
from tickertape.contracts.events import format_time, parse_time
from tickertape.contracts.messages import MAX_TOKEN, LevelName, ProtocolError
from tickertape.contracts.subjects import check_pattern
from tickertape.durations import is_duration, parse_duration
from tickertape.errors import OperatorError
from tickertape.process.console import print_json, print_line, print_lines, print_notice
from tickertape.process.files import create_file
from tickertape.relay.auth.claims import TokenError, decode_base64url, parse_json_object, read_time
from tickertape.relay.auth.key_parsing import read_key_file
from tickertape.relay.auth.keys import KeysError
from tickertape.relay.auth.revocation_list import Revocations
from tickertape.relay.auth.settings import TokenSettings, token_settings_error
from tickertape.relay.auth.signing import generate_key, mint, read_signing_key
from tickertape.relay.auth.token_service import TokenService
from tickertape.relay.auth.verifier import anonymous_subject
from tickertape.relay.core.grants import grant_of
from tickertape.validation import NOT_EMPTY

MAX_LIFETIME: Final = 366 * 86_400
"""Maximum lifetime of a token in seconds; longer-lived tokens would amount to passwords that never change."""


def _validate_lifetime(text: str) -> str:
    if not 1 <= parse_duration(text) <= MAX_LIFETIME:
        raise ValueError(f"{text} is not between 1s and {MAX_LIFETIME // 86_400}d")
    return text


def _validate_start(text: str) -> str:
    if not is_duration(text):
        parse_time(text)
    return text


OptionalText = Annotated[str | None, NOT_EMPTY]


def _validate_patterns(text: str) -> str:
    for pattern in _split_patterns(text):
        check_pattern(pattern)
    return text


class TokenCommandSettings(TokenSettings):
    """Settings of ``tickertape token``."""

    section: ClassVar[str] = "token"
    # What a token grants must not depend on the environment.
    only_options: ClassVar[frozenset[str]] = frozenset(
        {
            "audience", "connections", "control", "deny", "expires", "id", "issuer", "key_file", "kid",
            "level", "not_before", "public_file", "rate", "subject", "subjects",
        }
    )  # fmt: skip

    action: Positional[Literal["mint", "inspect", "keygen"]] = Field(
        description="mint a token, inspect a token, or generate a key"
    )
    token: Positional[str] = Field(
        "-", description="inspect: token to inspect; - reads it from standard input"
    )
    subject: OptionalText = Field(None, description="mint: subject of the token (sub), such as a user name")
    subjects: Annotated[
        str | None, Mark.COMMAS, AfterValidator(lambda text: text and _validate_patterns(text))
    ] = Field(None, description="mint: granted subject patterns, separated by commas; '>' grants everything")
    deny: Annotated[
        OptionalText, Mark.COMMAS, AfterValidator(lambda text: text and _validate_patterns(text))
    ] = Field(None, description="mint: subject patterns excluded from the grant, separated by commas")
    level: LevelName | None = Field(None, description="mint: minimum level of granted log events")
    rate: NonNegativeFloat | None = Field(
        None, description="mint: maximum log events per second; 0 means unlimited"
    )
    connections: PositiveInt | None = Field(None, description="mint: maximum concurrent connections")
    control: bool = Field(False, description="mint: grant the right to silence gateways (serve --control)")
    expires: Annotated[str, AfterValidator(_validate_lifetime)] = Field(
        "1h", description="mint: lifetime, such as 30m, 1h or 7d"
    )
    not_before: Annotated[OptionalText, AfterValidator(lambda text: text and _validate_start(text))] = Field(
        None, description="mint: start of validity, as a duration from now such as 5m, or an RFC 3339 time"
    )
    issuer: OptionalText = Field(None, description="mint: issuer (iss); TICKERTAPE_JWT_ISSUER by default")
    audience: OptionalText = Field(
        None, description="mint: audience (aud); TICKERTAPE_JWT_AUDIENCE by default"
    )
    id: OptionalText = Field(None, description="mint: id of the token (jti), by which it can be revoked")
    kid: OptionalText = Field(None, description="mint: id of the key (kid), if the relay has several keys")
    key_file: Path | None = Field(
        None, description="mint: file with the secret (HS256) or the private key (PEM)"
    )
    public_file: Path | None = Field(None, description="keygen: file to which the public key is written")

    @model_validator(mode="after")
    def _check_required(self) -> Self:
        if self.action in ("mint", "keygen") and self.jwt_algorithm is None:
            raise ValueError(f"{self.action} requires --jwt-algorithm: HS256, RS256, ES256 or EdDSA")
        if self.action == "mint" and not self.subjects:
            raise ValueError("mint requires --subjects, the granted patterns; '>' grants everything")
        if self.action == "mint" and (self.key_file or self.jwt_key or self.jwt_key_file) is None:
            raise ValueError("mint requires a signing key; set --key-file or TICKERTAPE_JWT_KEY")
        if self.action == "keygen" and self.jwt_algorithm != "HS256" and self.public_file is None:
            raise ValueError("keygen requires --public-file, to which the public key is written")
        return self


async def run(settings: TokenCommandSettings) -> int:
    """Run the command.

    Returns:
        0; 1 if a key is missing or invalid, or the inspected token cannot be verified.
    """
    try:
        if settings.action == "mint":
            print_line(_mint(settings))
            return 0
        if settings.action == "keygen":
            return _keygen(settings)
        return await _inspect(settings)
    except OperatorError as error:
        print_notice("token", str(error))
    except ProtocolError as error:
        print_notice("token", error.message)
    return 1


def _mint(settings: TokenCommandSettings) -> str:
    assert settings.jwt_algorithm is not None
    assert settings.subjects is not None
    if settings.key_file is not None:
        data, origin = read_key_file(settings.key_file), str(settings.key_file)
    elif settings.jwt_key is not None:
        # Restores bytes of the environment that are not UTF-8.
        data = settings.jwt_key.get_secret_value().encode("utf-8", "surrogateescape")
        origin = "TICKERTAPE_JWT_KEY"
    else:
        assert settings.jwt_key_file is not None
        data, origin = read_key_file(settings.jwt_key_file), str(settings.jwt_key_file)
    key = read_signing_key(settings.jwt_algorithm, data, origin)
    now = int(time.time())
    grant = {
        "subjects": _split_patterns(settings.subjects),
        "deny": None if settings.deny is None else _split_patterns(settings.deny),
        "level": settings.level,
        "rate": settings.rate,
        "connections": settings.connections,
        "control": settings.control or None,
    }
    claims = {
        "iss": settings.issuer or settings.jwt_issuer,
        "aud": settings.audience or settings.jwt_audience,
        "sub": settings.subject,
        "jti": settings.id,
        "iat": now,
        "nbf": None if settings.not_before is None else _parse_moment(settings.not_before, now),
        "exp": now + int(parse_duration(settings.expires)),
        settings.jwt_grant_claim: _without_none(grant),
    }
    return mint(settings.jwt_algorithm, key, _without_none(claims), settings.kid, settings.jwt_grant_claim)


def _keygen(settings: TokenCommandSettings) -> int:
    assert settings.jwt_algorithm is not None
    private, public = generate_key(settings.jwt_algorithm)
    # Written before the private key is printed: without its public key, that key would be useless.
    if public is not None:
        assert settings.public_file is not None
        # Never overwrite a key: tokens signed with its private key could no longer be verified.
        try:
            create_file(settings.public_file, public)
        except FileExistsError:
            raise KeysError(
                f"{settings.public_file} already exists", "choose another --public-file"
            ) from None
    print_lines(private.decode())
    return 0


async def _inspect(settings: TokenCommandSettings) -> int:
    try:
        token = (sys.stdin.read(MAX_TOKEN + 1) if settings.token == "-" else settings.token).strip()
    except UnicodeDecodeError:
        raise TokenError("malformed", "the token on standard input is not UTF-8") from None
    parts = token.split(".")
    if len(parts) != 3:
        raise TokenError("malformed", f"a token has three parts separated by dots; this one has {len(parts)}")
    # Decoded without verification, because tokens that are invalid are the ones to inspect.
    header = parse_json_object(decode_base64url(parts[0], MAX_TOKEN, "the header"), "the header")
    claims = parse_json_object(decode_base64url(parts[1], MAX_TOKEN, "the claims"), "the claims")
    is_valid, result = await _verify(settings, token)
    report = {
        "header": header,
        "claims": claims,
        "times": _describe_times(claims),
        "grant": _describe_grant(claims, token, settings.jwt_grant_claim),
        "verified": is_valid,
        "result": result,
    }
    print_json(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    return 0 if is_valid else 1


async def _verify(settings: TokenCommandSettings, token: str) -> tuple[bool, str]:
    problem = token_settings_error(settings)
    if problem is not None:
        return False, f"not verified: {problem}"
    revoked_file = settings.jwt_revoked_file
    revocations = None if revoked_file is None else Revocations(revoked_file)
    token_service = TokenService(settings, revocations, wall=time.time)
    await token_service.load()
    try:
        token_service.verify(token)
    except TokenError as error:
        return False, f"{error.reason}: {error.message}"
    return True, "verified"


def _describe_grant(claims: dict[str, Any], token: str, claim: str) -> dict[str, Any] | str:
    subject = claims.get("sub")
    try:
        # The expiry is not part of the grant and may be missing in an inspected token.
        grant = grant_of(
            {**claims, "exp": 0}, subject if isinstance(subject, str) else anonymous_subject(token), claim
        )
    except ProtocolError as error:
        return error.message
    return {
        "subject": grant.subject,
        "subjects": grant.subjects,
        "deny": grant.deny,
        "level": grant.level,
        "rate": grant.rate,
        "connections": grant.connections,
        **({"control": True} if grant.control else {}),
    }


def _describe_times(claims: dict[str, Any]) -> dict[str, str]:
    now = time.time()
    times: dict[str, str] = {}
    for name in ("iat", "nbf", "exp"):
        if name in claims:
            try:
                moment = read_time(claims, name)
            except TokenError as error:
                times[name] = error.message
                continue
            span = timedelta(seconds=int(abs(moment - now)))
            times[name] = f"{format_time(moment)} ({f'in {span}' if moment > now else f'{span} ago'})"
    return times


def _parse_moment(text: str, now: int) -> int:
    return int(now + parse_duration(text) if is_duration(text) else parse_time(text).timestamp())


def _split_patterns(text: str) -> list[str]:
    return [pattern.strip() for pattern in text.split(",")] if text else []


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
