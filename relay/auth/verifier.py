"""From a token to what it grants: bounds, signature, times, issuer, audience, revocation, in this order.

Invariants:

1. The configured algorithm is the only one; a token that names another is refused before any key is touched.
2. Only tokens that were found good are remembered, so nobody can push out others with garbage.
3. A remembered token is still checked for its end and for revocation; a change of keys forgets all.
4. No text that leaves here holds a token, a signature or a key.
"""

import re
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Final, Protocol

from jwt import PyJWS
from jwt.exceptions import InvalidSignatureError, PyJWTError
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.events import format_time
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.auth.claims import (
    ExpectedClaims,
    Reason,
    TokenError,
    decode_base64url,
    parse_json_object,
    read_name,
)
from tickertape.relay.auth.keys import Keys
from tickertape.relay.auth.settings import Algorithm
from tickertape.relay.core.grants import Grant, grant_of

MAX_TOKEN: Final = 16 * 1024
"""Characters; the limit of ``auth``, too."""

MAX_HEADER: Final = 2 * 1024
"""Bytes of the header's JSON."""

CACHE_SIZE: Final = 10_000
"""Good tokens that are remembered."""

_ANYBODY: Final = ExpectedClaims()
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", re.ASCII)


class KeySource(Protocol):
    """Where keys come from: ``FixedKeys`` or ``Jwks``."""

    @property
    def keys(self) -> Keys | None:
        """Those that count now, the same object until they change; None while there are none yet."""

    def request_refresh(self) -> bool:
        """Ask for newer ones; True when they are on their way."""


class Verifier:
    """Verifies tokens; in memory alone, so it may be called from the event loop.

    Args:
        algorithm: the only one that counts.
        source: of keys.
        expected: of a token's claims.
        revoked: tells which tokens no longer count.
        wall: UNIX seconds.

    Attributes:
        failures: how many tokens were refused, by reason.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        source: KeySource,
        *,
        expected: ExpectedClaims = _ANYBODY,
        revoked: Callable[[Grant], bool] = lambda _: False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.failures: Counter[Reason] = Counter()
        self._algorithm = algorithm
        self._source = source
        self._expected = expected
        self._revoked = revoked
        self._wall = wall
        # It knows this one algorithm, so not even a fault of ours could make it take another.
        self._signatures = PyJWS(algorithms=[algorithm])
        self._good: OrderedDict[bytes, Grant] = OrderedDict()
        self._good_for: Keys | None = None

    def __repr__(self) -> str:
        return f"Verifier({self._algorithm}, {len(self._good)} tokens remembered)"

    def verify(self, token: str) -> Grant:
        """Return what a token grants.

        Args:
            token: as the client sent it, without ``Bearer``.

        Raises:
            TokenError: it does not count. Its code is ``unavailable`` when the keys are not there yet or are
                being fetched anew, so that the client comes back with the same token.
        """
        try:
            return self._verified(token)
        except TokenError as error:
            self.failures[error.reason] += 1
            raise

    def _verified(self, token: str) -> Grant:
        if len(token) > MAX_TOKEN:
            raise TokenError("malformed", f"the token has {len(token)} characters; at most {MAX_TOKEN}")
        if not _SHAPE.fullmatch(token):
            raise TokenError("malformed", "the token is not three base64url parts with dots between them")
        keys = self._source.keys
        if keys is not self._good_for:
            self._good.clear()
            self._good_for = keys
        digest = sha256(token.encode("ascii")).digest()
        grant = self._good.get(digest)
        if grant is None:
            grant = self._read(token, keys)
        assert grant.expires_at is not None
        if grant.expires_at <= self._wall():
            self._good.pop(digest, None)
            raise TokenError("expired", f"the token ended at {format_time(grant.expires_at)}; get a new one")
        if self._revoked(grant):
            self._good.pop(digest, None)
            raise TokenError("revoked", "the token was revoked; get a new one")
        self._good[digest] = grant
        self._good.move_to_end(digest)
        if len(self._good) > CACHE_SIZE:
            self._good.popitem(last=False)
        return grant

    def _read(self, token: str, keys: Keys | None) -> Grant:
        kid = self._kid(token)
        payload = self._signed(token, kid, keys)
        claims = parse_json_object(payload, "the token's claims")
        self._expected.check(claims, self._wall())
        try:
            return grant_of(claims, claims.get("sub") or anonymous_subject(token))
        except ProtocolError as error:
            reason: Reason = "nothing_granted" if error.code is ErrorCode.FORBIDDEN else "claim"
            raise TokenError(reason, error.message, error.code) from None

    def _kid(self, token: str) -> str | None:
        """Check the header, and return the id of the key that it names.

        ``jku``, ``x5u``, ``jwk`` and ``x5c`` would let a token bring its own key: nothing here reads them.
        """
        what = "the token's header"
        header = parse_json_object(decode_base64url(token.partition(".")[0], MAX_HEADER, what), what)
        named = header.get("alg")
        if named != self._algorithm:
            raise TokenError(
                "algorithm",
                f"the token's alg is {ascii(named)[:40]}; this relay takes {self._algorithm} only",
            )
        for extension in ("crit", "b64"):
            if extension in header:
                raise TokenError(
                    "malformed", f"the token's header has {extension!r}, which is not known here"
                )
        return read_name(header, "kid", "malformed")

    def _signed(self, token: str, kid: str | None, keys: Keys | None) -> bytes:
        """Return the payload, if one of the keys signed it."""
        if keys is None:
            self._source.request_refresh()
            raise TokenError(
                "keys_unavailable",
                "the keys that verify tokens are not there yet; come back in a second",
                ErrorCode.UNAVAILABLE,
            )
        candidates = keys.find(kid)
        if not candidates:
            if self._source.request_refresh():
                raise TokenError(
                    "unknown_key",
                    "the token's kid is not known yet; the keys are fetched anew, come back in a second",
                    ErrorCode.UNAVAILABLE,
                )
            raise TokenError("unknown_key", "the token's kid is none of this relay's keys; get a new token")
        for key in candidates:
            try:
                found = self._signatures.decode_complete(token, key.material, [self._algorithm])
            except InvalidSignatureError:
                continue
            except PyJWTError:
                # Its text may quote the token.
                raise TokenError("malformed", "the token is no signed JWT in compact form") from None
            payload = found["payload"]
            assert isinstance(payload, bytes)
            return payload
        raise TokenError("signature", "the token was not signed with a key that this relay knows")


def anonymous_subject(token: str) -> str:
    """Name the subject of a token without ``sub``: a digest of what was signed.

    The signature is left out, since a holder can write one of ES256 in a second way, and would be somebody
    else then: not revoked, and with connections of its own.
    """
    return f"token:{sha256(token.rpartition('.')[0].encode('ascii')).hexdigest()[:16]}"


__all__ = ["ExpectedClaims", "KeySource", "TokenError", "Verifier", "anonymous_subject"]
