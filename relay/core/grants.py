"""What a verified token lets its client see, how fast, and how often at once.

Invariants:

1. What a client gets is its filter intersected with its grant, without what is denied; exact for every
   pair of patterns.
2. A claim that is not understood grants nothing: it is refused, never passed over.
3. The decision is made once per filter and once per subject, never per event.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.messages import MAX_SUBJECTS, ProtocolError
from tickertape.contracts.subjects import LEVELS, SubjectError, check_pattern, covers, intersect
from tickertape.relay.core.filters import RANK, Filter

CLAIM: Final = "tickertape"
"""Name of the claim that holds a grant."""

MAX_PATTERNS: Final = 256
"""Patterns that a filter may fall into when a grant narrows it; a ``subscribe`` takes 1 ms at most."""

MAX_RATE: Final = 1_000_000
_FIELDS: Final = frozenset({"subjects", "deny", "level", "rate", "connections"})


@dataclass(frozen=True, slots=True)
class Grant:
    """What one client may do. The default grants everything, as ``--auth none`` does.

    Attributes:
        subjects: patterns that it may see.
        deny: patterns that it may not see all the same.
        level: least level that it may see, of subjects that name one.
        rate: log events per second; 0 means no limit, None the relay's own setting.
        connections: most connections at once of its subject; None means the relay's own setting.
        subject: whose token it is: its ``sub``, else a digest of it; empty without a token.
        token_id: the token's ``jti``, by which it can be revoked.
        expires_at: end of the token, UNIX seconds; None without a token.
    """

    subjects: tuple[str, ...] = (">",)
    deny: tuple[str, ...] = ()
    level: str = "DEBUG"
    rate: float | None = None
    connections: int | None = None
    subject: str = ""
    token_id: str | None = None
    expires_at: float | None = None

    def intersect(self, patterns: tuple[str, ...], level: str) -> Filter:
        """Return the filter that is left of what is asked.

        Args:
            patterns: legal ones, as asked.
            level: least level, as asked.

        Raises:
            ProtocolError: nothing is left of it, or more patterns than a filter may have.
        """
        granted = dict.fromkeys(
            both
            for pattern in patterns
            for allowed in self._relevant(pattern)
            if (both := intersect(pattern, allowed)) is not None
            and not any(covers(denied, both) for denied in self.deny)
        )
        if not granted:
            raise ProtocolError(
                ErrorCode.FORBIDDEN,
                f"the token grants nothing of {', '.join(patterns)[:200]}; "
                f"it is for {', '.join(self.subjects)[:200]}",
            )
        if len(granted) > MAX_PATTERNS:
            raise ProtocolError(
                ErrorCode.BAD_SUBJECTS,
                f"the grant splits this filter into {len(granted)} patterns; "
                f"at most {MAX_PATTERNS}: ask for fewer",
            )
        kept = tuple(granted)
        deny = tuple(one for one in self.deny if any(intersect(one, pattern) for pattern in kept))
        return Filter(kept, max(level, self.level, key=RANK.__getitem__), deny)

    def _relevant(self, pattern: str) -> tuple[str, ...]:
        """Granted patterns that a pattern has to be cut to; one that covers it says all."""
        for allowed in self.subjects:
            if covers(allowed, pattern):
                return (allowed,)
        return self.subjects


EVERYTHING: Final = Grant()
"""What ``--auth none`` grants."""


def grant_of(claims: Mapping[str, Any], subject: str) -> Grant:
    """Read the grant out of the claims of a verified token.

    Args:
        claims: of a token whose signature, times, issuer and audience were found good; ``exp`` is a number.
        subject: whose token it is.

    Raises:
        ProtocolError: ``forbidden`` when it grants nothing, ``unauthorized`` when its claim is malformed.
    """
    claim = claims.get(CLAIM)
    if claim is None:
        raise ProtocolError(ErrorCode.FORBIDDEN, f"the token has no claim {CLAIM!r}, so it grants nothing")
    if not isinstance(claim, dict):
        raise _malformed("", "is not an object")
    unknown = sorted(set(claim) - _FIELDS)
    if unknown:
        # A misspelt 'deny' that is passed over would grant what was to be denied.
        raise _malformed(f".{unknown[0][:40]}", f"is not known; known are {', '.join(sorted(_FIELDS))}")
    subjects = _patterns(claim, "subjects")
    if not subjects:
        raise ProtocolError(
            ErrorCode.FORBIDDEN, f"the token's {CLAIM}.subjects is empty, so it grants nothing"
        )
    level = claim.get("level", "DEBUG")
    if not isinstance(level, str) or level.upper() not in LEVELS:
        raise _malformed(".level", f"is none of {', '.join(LEVELS)}")
    rate = claim.get("rate")
    if rate is not None and (
        isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= MAX_RATE
    ):
        raise _malformed(".rate", f"is not a number in 0..{MAX_RATE}")
    connections = claim.get("connections")
    if connections is not None and (
        isinstance(connections, bool) or not isinstance(connections, int) or connections < 1
    ):
        raise _malformed(".connections", "is not a whole number of at least 1")
    return Grant(
        subjects=subjects,
        deny=_patterns(claim, "deny"),
        level=level.upper(),
        rate=None if rate is None else float(rate),
        connections=connections,
        subject=subject,
        token_id=str(claims["jti"]) if "jti" in claims else None,
        expires_at=float(claims["exp"]),
    )


def _patterns(claim: dict[str, Any], field: str) -> tuple[str, ...]:
    given = claim.get(field, [])
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise _malformed(f".{field}", "is not a list of patterns")
    if len(given) > MAX_SUBJECTS:
        raise _malformed(f".{field}", f"has {len(given)} patterns; at most {MAX_SUBJECTS}")
    try:
        return tuple(dict.fromkeys(check_pattern(one) for one in given))
    except SubjectError as error:
        raise _malformed(f".{field}", str(error)) from None


def _malformed(where: str, why: str) -> ProtocolError:
    return ProtocolError(ErrorCode.UNAUTHORIZED, f"the token's {CLAIM}{where} {why}")
