"""Validation of token claims: strict JSON, times, issuer, audience and names.

This module also defines the error for rejected tokens.
"""

import base64
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.events import format_time
from tickertape.contracts.messages import ProtocolError
from tickertape.contracts.strict_json import find_duplicate_key, is_deeper

MAX_DEPTH: Final = 32
"""Maximum nesting of objects and arrays in the header and in the claims."""

MAX_NAME: Final = 256
"""Maximum characters of ``sub``, ``jti`` and ``kid``."""

MAX_TIME: Final = 253_402_300_799
"""Latest time in UNIX seconds: the end of the year 9999, since RFC 3339 cannot represent later times."""

Reason = Literal[
    "malformed",
    "algorithm",
    "signature",
    "expired",
    "not_yet_valid",
    "issuer",
    "audience",
    "unknown_key",
    "revoked",
    "claim",
    "empty_grant",
    "keys_unavailable",
]
"""Reason for a rejection, as a label in metrics and logs."""


class TokenError(ProtocolError):
    """Error for a token that is rejected.

    Args:
        reason: label for metrics and logs.
        message: description of the problem and its fix, without any secret part of the token.
        code: code of the ``error`` message.
    """

    def __init__(self, reason: Reason, message: str, code: ErrorCode = ErrorCode.UNAUTHORIZED) -> None:
        super().__init__(code, message)
        self.reason = reason


def rejection_reason(error: ProtocolError) -> str:
    """Return the reason of an error for logs: a fixed short text, without data of the client."""
    return error.reason if isinstance(error, TokenError) else str(error.code)


@dataclass(frozen=True, slots=True)
class ExpectedClaims:
    """Claims that the relay requires in a token.

    Attributes:
        issuer: required ``iss``; None accepts any issuer.
        audience: value that ``aud`` must contain; None rejects tokens with an ``aud``.
        leeway: seconds of clock skew that are tolerated for ``nbf`` and ``iat``.
    """

    issuer: str | None = None
    audience: str | None = None
    leeway: float = 5.0

    def check(self, claims: dict[str, Any], now: float) -> None:
        """Check all claims except the expiry, which is checked on each use.

        Args:
            claims: claims of a token with a valid signature.
            now: UNIX seconds.

        Raises:
            TokenError: a claim is missing or does not match.
        """
        self._check_times(claims, now)
        self._check_issuer(claims)
        self._check_audience(claims)
        read_name(claims, "sub")
        read_name(claims, "jti")

    def _check_times(self, claims: dict[str, Any], now: float) -> None:
        """Check ``nbf`` and ``iat``, and that ``exp`` is a valid time."""
        if "exp" not in claims:
            raise TokenError("claim", "the token has no exp; tokens without an expiry are not accepted")
        read_time(claims, "exp")
        for name in ("nbf", "iat"):
            if name in claims and (not_before := read_time(claims, name)) > now + self.leeway:
                raise TokenError(
                    "not_yet_valid",
                    f"the token's {name} is {format_time(not_before)}, in the future; synchronize the clocks",
                )

    def _check_issuer(self, claims: dict[str, Any]) -> None:
        if self.issuer is not None and claims.get("iss") != self.issuer:
            raise TokenError("issuer", "the token's iss does not match TICKERTAPE_JWT_ISSUER")

    def _check_audience(self, claims: dict[str, Any]) -> None:
        if "aud" not in claims:
            if self.audience is not None:
                raise TokenError("audience", "the token has no aud, but TICKERTAPE_JWT_AUDIENCE requires one")
            return
        claim = claims["aud"]
        audiences = [claim] if isinstance(claim, str) else claim
        if not isinstance(audiences, list) or not all(isinstance(audience, str) for audience in audiences):
            raise TokenError("claim", "the token's aud is neither a string nor a list of strings")
        if self.audience is None:
            # RFC 7519, 4.1.3: a recipient rejects a token whose audience does not include it.
            raise TokenError(
                "audience", "the token has an aud, but the relay has none; set TICKERTAPE_JWT_AUDIENCE"
            )
        if self.audience not in audiences:
            raise TokenError("audience", "the token's aud does not contain TICKERTAPE_JWT_AUDIENCE")


def decode_base64url(part: str, limit: int, label: str) -> bytes:
    """Decode base64url without padding (RFC 7515, 2).

    Args:
        part: part of a token.
        limit: maximum number of decoded bytes.
        label: name of the part for the error, such as "the token's header".

    Raises:
        TokenError: the part is not base64url, or is too large.
    """
    if len(part) > (limit * 4 + 2) // 3:
        raise TokenError("malformed", f"{label} has more than {limit} bytes")
    try:
        # Without ``validate``, b64decode skips characters outside of the alphabet.
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise TokenError("malformed", f"{label} is not base64url") from None


def parse_json_object(text: bytes, label: str) -> dict[str, Any]:
    """Parse a JSON object with unique keys, so that no two parsers can interpret it differently."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise TokenError("malformed", f"{label} is not valid JSON") from None
    if not isinstance(value, dict):
        raise TokenError("malformed", f"{label} is not a JSON object")
    if is_deeper(text, MAX_DEPTH):
        raise TokenError("malformed", f"{label} is nested more than {MAX_DEPTH} levels deep")
    if find_duplicate_key(text, value) is not None:
        raise TokenError("malformed", f"{label} has a duplicate key")
    return value


def read_name(values: dict[str, Any], key: str, reason: Reason = "claim") -> str | None:
    """Return a name from the header or the claims, or None if it is absent.

    Raises:
        TokenError: the value is not a printable string of 1 to ``MAX_NAME`` characters.
    """
    if key not in values:
        return None
    value = values[key]
    # Printable, since names appear in logs, and one per line in the revocation file.
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise TokenError(reason, f"the token's {key} is not a printable string of 1 to {MAX_NAME} characters")
    return value


def read_time(claims: dict[str, Any], name: str) -> float:
    """Return a claim as UNIX seconds.

    Raises:
        TokenError: the claim is not a valid time.
    """
    value = claims[name]
    # ``true`` is excluded explicitly, because a bool is an int in Python.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIME:
        raise TokenError("claim", f"the token's {name} is not a time in UNIX seconds")
    return float(value)
