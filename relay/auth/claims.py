"""What a token must say to count: strict JSON, its times, its issuer, its audience, its names.

Here lies the error of every token that is refused, too.
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
"""Objects and arrays within each other, in header and claims."""

MAX_NAME: Final = 256
"""Characters of ``sub``, ``jti`` and ``kid``."""

MAX_TIME: Final = 253_402_300_799
"""UNIX seconds: the last of the year 9999, since later ones cannot be written as RFC 3339."""

Reason = Literal[
    "malformed",
    "algorithm",
    "signature",
    "expired",
    "early",
    "issuer",
    "audience",
    "unknown_key",
    "revoked",
    "claim",
    "nothing_granted",
    "keys_unavailable",
]


class TokenError(ProtocolError):
    """A token does not let its client in.

    Args:
        reason: a label for metrics.
        message: what is wrong and what would be right; never any of the token's text that is secret.
        code: what an ``error`` message says.
    """

    def __init__(self, reason: Reason, message: str, code: ErrorCode = ErrorCode.UNAUTHORIZED) -> None:
        super().__init__(code, message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ExpectedClaims:
    """What the relay expects of a token's claims.

    Attributes:
        issuer: the ``iss`` that a token must have; None takes any.
        audience: the ``aud`` that a token must have among its own; None refuses tokens that have one.
        leeway: seconds of clock difference that ``nbf`` and ``iat`` are allowed.
    """

    issuer: str | None = None
    audience: str | None = None
    leeway: float = 5.0

    def check(self, claims: dict[str, Any], now: float) -> None:
        """Check all but the end of the token, which is checked with each use.

        Args:
            claims: of a token with a good signature.
            now: UNIX seconds.

        Raises:
            TokenError: they are not as expected.
        """
        self._check_times(claims, now)
        self._check_issuer(claims)
        self._check_audience(claims)
        read_name(claims, "sub")
        read_name(claims, "jti")

    def _check_times(self, claims: dict[str, Any], now: float) -> None:
        """Check ``nbf`` and ``iat``, and that ``exp`` is a time."""
        if "exp" not in claims:
            raise TokenError("claim", "the token has no exp; one that never ends is not taken")
        read_time(claims, "exp")
        for name in ("nbf", "iat"):
            if name in claims and (begins := read_time(claims, name)) > now + self.leeway:
                raise TokenError(
                    "early", f"the token's {name} is {format_time(begins)}, in the future; mind the clocks"
                )

    def _check_issuer(self, claims: dict[str, Any]) -> None:
        if self.issuer is not None and claims.get("iss") != self.issuer:
            raise TokenError("issuer", "the token's iss is not the issuer that TICKERTAPE_JWT_ISSUER names")

    def _check_audience(self, claims: dict[str, Any]) -> None:
        if "aud" not in claims:
            if self.audience is not None:
                raise TokenError("audience", "the token has no aud; TICKERTAPE_JWT_AUDIENCE asks for one")
            return
        given = claims["aud"]
        audiences = [given] if isinstance(given, str) else given
        if not isinstance(audiences, list) or not all(isinstance(one, str) for one in audiences):
            raise TokenError("claim", "the token's aud is neither a string nor a list of strings")
        if self.audience is None:
            # It was made for somebody, and nobody said that it is us (RFC 7519, 4.1.3).
            raise TokenError(
                "audience", "the token has an aud, and the relay none; set TICKERTAPE_JWT_AUDIENCE to it"
            )
        if self.audience not in audiences:
            raise TokenError("audience", "the token is for others: TICKERTAPE_JWT_AUDIENCE is not in its aud")


def decode_base64url(part: str, limit: int, what: str) -> bytes:
    """Decode base64url without padding (RFC 7515, 2).

    Args:
        part: of a token.
        limit: bytes that it may have.
        what: it is, for people.

    Raises:
        TokenError: it is not base64url, or has more bytes.
    """
    if len(part) > (limit * 4 + 2) // 3:
        raise TokenError("malformed", f"{what} has over {limit} bytes")
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise TokenError("malformed", f"{what} is not base64url") from None


def parse_json_object(text: bytes, what: str) -> dict[str, Any]:
    """Read strict JSON, in which a key stands once: two readers must not find two meanings."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise TokenError("malformed", f"{what} cannot be read as JSON") from None
    if not isinstance(value, dict):
        raise TokenError("malformed", f"{what} is no JSON object")
    if is_deeper(text, MAX_DEPTH):
        raise TokenError("malformed", f"{what} is nested deeper than {MAX_DEPTH}")
    if find_duplicate_key(text, value) is not None:
        raise TokenError("malformed", f"{what} has a key twice")
    return value


def read_name(values: dict[str, Any], key: str, reason: Reason = "claim") -> str | None:
    if key not in values:
        return None
    value = values[key]
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise TokenError(reason, f"the token's {key} is no printable text of 1 to {MAX_NAME} characters")
    return value


def read_time(claims: dict[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIME:
        raise TokenError("claim", f"the token's {name} is no time in UNIX seconds")
    return float(value)
