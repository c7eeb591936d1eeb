"""Grants of tokens and client certificates: subjects, rate and connections that a client is allowed.

Invariants:

1. A client receives the intersection of its filter and its grant, except what is denied; the intersection is
   exact for every pair of patterns.
2. An unknown field in the claim grants nothing: the token is rejected, the field is never ignored.
3. The decision is made once per filter and once per subject, never per event.
4. A client with a token and a certificate receives what both grant.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.events import MODELS
from tickertape.contracts.messages import MAX_SUBJECTS, ProtocolError
from tickertape.contracts.subjects import LEVELS, SubjectError, check_pattern, covers, intersect, unescape
from tickertape.relay.core.filters import RANK, Filter
from tickertape.relay.core.where.condition import Condition

CLAIM: Final = "tickertape"
"""Name of the claim that contains the grant."""

MAX_PATTERNS: Final = 256
"""Maximum number of patterns of a filter after intersection; keeps a ``subscribe`` below 1 ms."""

MAX_RATE: Final = 1_000_000
"""Maximum rate that a token can state, in log events per second."""

_DELIVERED: Final = tuple(
    re.sub(r"\{\w+\}", "*", template.replace("{level}", level.lower()))
    for model in MODELS.values()
    for template in model.SUBJECT.templates
    for level in (LEVELS if "{level}" in template else LEVELS[:1])
)
"""Patterns of the subjects of all events in the contract: the fields are wildcards, except the level."""

N = TypeVar("N", int, float)

_FIELDS: Final = frozenset({"subjects", "deny", "level", "rate", "connections", "control"})


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Verified client certificate that a rule matches.

    Attributes:
        names: all names of the certificate, such as ``dns:viewer.example.com``.
        fingerprint: SHA-256 digest of the certificate, lower-case hex, by which it can be revoked.
        grant: grant of the certificate.
    """

    names: tuple[str, ...]
    fingerprint: str
    grant: "Grant"


@dataclass(frozen=True, slots=True)
class Grant:
    """Permissions of one client. The default grants everything, as ``--auth none`` does.

    Attributes:
        subjects: patterns that the client may receive.
        deny: patterns that the client may not receive, although ``subjects`` covers them.
        level: minimum level of subjects that name a level.
        rate: maximum log events per second; 0 means no limit, None the setting of the relay.
        connections: maximum number of connections of the token subject; None means the setting of the relay.
        subject: ``sub`` of the token, or a digest of a token without ``sub``; the matching name of a client
            certificate without a token; otherwise empty.
        token_id: ``jti`` of the token, by which it can be revoked.
        expires_at: earliest expiry of token and certificate, UNIX seconds; None without both.
        key_id: ``kid`` of the token.
        certificate: certificate of the client; None without one.
        control: whether the client may silence gateways, where the relay allows that.
    """

    subjects: tuple[str, ...] = (">",)
    deny: tuple[str, ...] = ()
    level: str = "DEBUG"
    rate: float | None = None
    connections: int | None = None
    subject: str = ""
    token_id: str | None = None
    expires_at: float | None = None
    key_id: str | None = None
    certificate: ClientCertificate | None = None
    control: bool = False

    def intersect(self, patterns: tuple[str, ...], level: str, where: Condition | None = None) -> Filter:
        """Return the intersection of a requested filter and this grant.

        Args:
            patterns: requested patterns, which are valid.
            level: requested minimum level.
            where: requested condition, which no grant restricts.

        Raises:
            ProtocolError: the intersection is empty, or has too many patterns.
        """
        kept = tuple(
            overlap
            for overlap in self._overlaps(patterns)
            if not any(covers(denied, overlap) for denied in self.deny)
        )
        if not kept:
            raise ProtocolError(
                ErrorCode.FORBIDDEN,
                f"the {self.source} does not grant {', '.join(patterns)[:200]}; "
                f"it grants {', '.join(self.subjects)[:200]}",
            )
        if len(kept) > MAX_PATTERNS:
            raise ProtocolError(
                ErrorCode.BAD_SUBJECTS,
                f"the grant splits this filter into {len(kept)} patterns, more than {MAX_PATTERNS}; "
                "request fewer",
            )
        # Only what can still match: clients whose filters differ in other denied patterns share a feed.
        deny = tuple(denied for denied in self.deny if any(intersect(denied, pattern) for pattern in kept))
        return Filter(kept, max(level, self.level, key=RANK.__getitem__), deny, where)

    def restrict(self, certificate: ClientCertificate) -> "Grant":
        """Return the intersection of a token's grant and the grant of the client's certificate.

        A rate or number of connections that only one of them states applies; of two, the lower one.

        Raises:
            ProtocolError: the intersection is empty, or has too many patterns.
        """
        other = certificate.grant
        subjects = tuple(other._overlaps(self.subjects))
        if not subjects:
            raise ProtocolError(
                ErrorCode.FORBIDDEN, "the token and the client certificate grant no subject in common"
            )
        if len(subjects) > MAX_PATTERNS:
            raise ProtocolError(
                ErrorCode.FORBIDDEN,
                f"the token and the client certificate have {len(subjects)} patterns in common, more than "
                f"{MAX_PATTERNS}; simplify one of the two grants",
            )
        return replace(
            self,
            subjects=subjects,
            deny=tuple(dict.fromkeys((*self.deny, *other.deny))),
            level=max(self.level, other.level, key=RANK.__getitem__),
            rate=_lower_rate(self.rate, other.rate),
            connections=_lower(self.connections, other.connections),
            control=self.control and other.control,
            expires_at=_lower(self.expires_at, other.expires_at),
            certificate=certificate,
        )

    @property
    def source(self) -> str:
        """Name of what the client has authenticated with, for messages."""
        if self.certificate is None:
            return "token"
        return "client certificate" if self.token_id is None else "token or client certificate"

    def _overlaps(self, patterns: tuple[str, ...]) -> dict[str, None]:
        """Return the intersections of several patterns with the granted ones, each once and in order."""
        return dict.fromkeys(
            overlap
            for pattern in patterns
            for allowed in self._relevant(pattern)
            if (overlap := intersect(pattern, allowed)) is not None
        )

    def _relevant(self, pattern: str) -> tuple[str, ...]:
        """Return the granted patterns to intersect a pattern with: a single one if it covers the pattern."""
        # Granted patterns that overlap would otherwise split a pattern that one of them covers.
        for allowed in self.subjects:
            if covers(allowed, pattern):
                return (allowed,)
        return self.subjects


EVERYTHING: Final = Grant()
"""Grant of every client under ``--auth none``."""


def grant_of(claims: Mapping[str, Any], subject: str, claim: str = CLAIM) -> Grant:
    """Read the grant from the claims of a verified token.

    Args:
        claims: claims of a token with valid signature, times, issuer and audience; ``exp`` is a number.
        subject: subject to count the token under.
        claim: name of the claim that contains the grant.

    Raises:
        ProtocolError: ``forbidden`` if the token grants nothing, ``unauthorized`` if its claim is malformed.
    """
    value = claims.get(claim)
    if value is None:
        raise ProtocolError(ErrorCode.FORBIDDEN, f"the token has no claim {claim!r}, so it grants nothing")
    return replace(
        parse_grant(value, f"the token's {claim}"),
        subject=subject,
        token_id=str(claims["jti"]) if "jti" in claims else None,
        expires_at=float(claims["exp"]),
    )


def parse_grant(value: object, label: str) -> Grant:
    """Parse a grant as JSON has it in a claim, or in a file.

    Args:
        value: parsed JSON.
        label: name of the value for errors, such as "the token's tickertape".

    Raises:
        ProtocolError: ``forbidden`` if it grants nothing, ``unauthorized`` if it is malformed.
    """
    if not isinstance(value, dict):
        raise _malformed(label, "is not an object")
    unknown = sorted(set(value) - _FIELDS)
    if unknown:
        # Ignoring a misspelled 'deny' would grant what the token should deny.
        raise _malformed(
            f"{label}.{unknown[0][:40]}", f"is unknown; known fields are {', '.join(sorted(_FIELDS))}"
        )
    subjects = _patterns(value, "subjects", label)
    if not subjects:
        raise ProtocolError(ErrorCode.FORBIDDEN, f"{label}.subjects is empty, so it grants nothing")
    level = value.get("level", "DEBUG")
    if not isinstance(level, str) or not level.isascii() or level.upper() not in LEVELS:
        raise _malformed(f"{label}.level", f"is not one of {', '.join(LEVELS)}")
    # JSON's ``true`` is an ``int`` in Python, so booleans are rejected explicitly here and below.
    rate = value.get("rate")
    if rate is not None and (
        isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= MAX_RATE
    ):
        raise _malformed(f"{label}.rate", f"is not a number in 0..{MAX_RATE}")
    connections = value.get("connections")
    if connections is not None and (
        isinstance(connections, bool) or not isinstance(connections, int) or connections < 1
    ):
        raise _malformed(f"{label}.connections", "is not an integer of at least 1")
    control = value.get("control", False)
    if not isinstance(control, bool):
        raise _malformed(f"{label}.control", "is not true or false")
    return Grant(
        subjects=subjects,
        deny=_deny_patterns(value, label),
        level=level.upper(),
        rate=None if rate is None else float(rate),
        connections=connections,
        control=control,
    )


def _lower_rate(one: float | None, other: float | None) -> float | None:
    """Return the lower of two rates; 0 means no limit, and None that a grant states none."""
    if one is None or other is None:
        return other if one is None else one
    return min(one or math.inf, other or math.inf) if one or other else 0.0


def _lower(one: N | None, other: N | None) -> N | None:
    """Return the lower of two numbers, of which None stands for no number."""
    return min((number for number in (one, other) if number is not None), default=None)


def _deny_patterns(value: dict[str, Any], label: str) -> tuple[str, ...]:
    """Return the denied patterns; one that no event can match is a mistake that would grant more."""
    patterns = _patterns(value, "deny", label)
    for pattern in patterns:
        if not any(_can_match(intersect(pattern, subjects)) for subjects in _DELIVERED):
            raise _malformed(f"{label}.deny", f"has {pattern[:80]!r}, which matches no subject of an event")
    return patterns


def _can_match(pattern: str | None) -> bool:
    """Return whether the tokens of a pattern are those of a subject: ``a=2e`` is never written for a dot."""
    try:
        return pattern is not None and all(token == "*" or unescape(token) for token in pattern.split("."))
    except SubjectError:
        return False


def _patterns(value: dict[str, Any], field: str, label: str) -> tuple[str, ...]:
    patterns = value.get(field, [])
    if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
        raise _malformed(f"{label}.{field}", "is not a list of patterns")
    if len(patterns) > MAX_SUBJECTS:
        raise _malformed(f"{label}.{field}", f"has {len(patterns)} patterns; at most {MAX_SUBJECTS}")
    try:
        return tuple(dict.fromkeys(check_pattern(pattern) for pattern in patterns))
    except SubjectError as error:
        raise _malformed(f"{label}.{field}", str(error)) from None


def _malformed(field: str, problem: str) -> ProtocolError:
    return ProtocolError(ErrorCode.UNAUTHORIZED, f"{field} {problem}")
